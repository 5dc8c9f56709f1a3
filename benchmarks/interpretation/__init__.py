"""What masses rest on: interlopers and latent truths."""
