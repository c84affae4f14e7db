"""The counter of how jobs end: workers count the ends of attempts, the API those of jobs that no worker ends."""

from prometheus_client import Counter

JOBS = Counter(
    "image_analysis_jobs_total",
    "Attempts at jobs that this process ended: `completed`, `cancelled`, and `retried` or `failed` with a code",
    ["outcome", "code"],
)
