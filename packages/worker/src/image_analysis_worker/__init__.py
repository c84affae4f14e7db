"""The worker: loads one model, takes jobs from that model's queue, and analyzes their images."""
