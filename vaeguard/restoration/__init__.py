"""Restoration: old scans in, clean ones out, and the networks that do it.

`denoising` is the job over a folder tree: `places` says which scans and where to, `work` does one file with its record
(`records`), `scans` reads and writes it, `page` restores one page, `denoiser` one plane. `fitting` makes a denoiser of
one's own: from `training_data` and `degrade`, by `batches` and `training`; `direct` and `ladder` are its networks.
"""
