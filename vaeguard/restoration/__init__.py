"""Restoration: old scans in, clean ones out, and the networks that do it.

`denoising` is the job over a folder tree, and `planning` says beforehand what it would do. `places` says which scans
there are and where to; `work` does one file with its record (`records`), which `formats` reads and writes; `pipeline`
does one page by a `restorer`, `denoiser` one plane. `reasons` says why a page was left or should be looked at, `notes`
what else to know; `meter` adds up how far all workers are. `networks` makes a denoiser of one's own.
"""
