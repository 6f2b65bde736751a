"""Reading: image files, folders, packed files and named sets become arrays, in order and in constant memory; no torch.

`data_sets` hands on what is learned from as one `ImageSet`; `inputs` hands on what is scored, piece by piece.
"""
