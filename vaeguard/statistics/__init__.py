"""Statistics: ROC-AUC, intervals and false alarms, from arrays to numbers."""
