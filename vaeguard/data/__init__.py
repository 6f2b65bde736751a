"""Reading: named sets, folders, image files, arrays, tar archives and Parquet files, each a `Source`; no torch.

`inputs` finds sources, which `score` reads piece by piece in constant memory; `data_sets` makes one `ImageSet` of them.
"""
