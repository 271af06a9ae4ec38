"""Floor 3. Turns records into adapters.

The only floor that may import torch, transformers, peft and trl, and only inside its heavy modules.
"""
