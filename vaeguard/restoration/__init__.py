"""Restoration: old scans in, clean ones out, and the networks that do it.

`denoising` is the job over a folder tree: `places` says which scans and where to, `work` does one file with its record
(`records`), `scans` reads and writes it, `page` restores one page, `denoiser` one plane. `planning` says beforehand
what would be done, `reasons` why a page was left or should be looked at, `notes` what else to know; `meter` adds up how
far all workers are. `fitting` makes a denoiser of one's own: from `training_data` and `degrade`, by `batches` and
`training`; `direct` and `ladder` are its networks.
"""
