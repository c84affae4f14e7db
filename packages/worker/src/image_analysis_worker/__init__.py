"""The worker: loads one model, takes jobs from that model's queue, analyzes; it opens no socket but Redis's."""
