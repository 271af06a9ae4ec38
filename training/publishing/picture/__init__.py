"""The README's picture: two small runs by the recipes that stand here, drawn from what they told; `make picture`.

Never here: training, which `graftline train` does, and drawing, which is `plot`'s.
"""
