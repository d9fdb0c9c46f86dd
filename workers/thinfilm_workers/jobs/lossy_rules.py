"""Give jobs to the series that a lossy rule is due for, and to those whose originals may go."""

import datetime as dt

import structlog

from thinfilm_gateway.index import derivations, jobs
from thinfilm_workers.context import Context

log = structlog.get_logger()


def apply_lossy_rules(context: Context) -> None:
    """Ask for the work that is due by the rules of the settings. Looks at many rows: run it now and then."""
    rules = context.settings.lossy
    if not rules:
        return
    now = dt.datetime.now(dt.UTC)
    with context.database.reading() as session:
        lossy = derivations.series_due(session, rules, now)
        retiring = derivations.series_to_retire(session, rules, now)
    if lossy or retiring:
        with context.database.session() as session:
            jobs.request(session, jobs.RECOMPRESS, lossy, now)
            jobs.request(session, jobs.RETIRE, retiring, now)
        log.info("lossy_jobs_requested", recompress=len(lossy), retire=len(retiring))
