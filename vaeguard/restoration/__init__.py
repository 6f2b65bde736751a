"""Restoration: old scans in, clean ones out, and the networks that do it.

`denoising` does folder trees, `page` one page, `denoiser` one plane of it; `fitting` makes a denoiser of one's own.
"""
