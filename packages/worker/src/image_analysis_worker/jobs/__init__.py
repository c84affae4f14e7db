"""Jobs in flight: their records, outcomes and spans."""
