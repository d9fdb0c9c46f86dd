"""The work itself: plain, idempotent functions, run by the local worker and by Celery alike."""
