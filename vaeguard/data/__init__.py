"""Reading: named sets, folders, image files, arrays, tar archives and Parquet files, each a `Source`; no torch.

`inputs` finds the sources that `score` reads piece by piece in constant memory; `data_sets` joins sources to one
`ImageSet`.
"""
