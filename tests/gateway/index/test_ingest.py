from support.received import QUIET, received, series_of
from thinfilm_gateway.index import jobs
from thinfilm_gateway.index.archiving import Placement, pending, record_container
from thinfilm_gateway.index.ingest import Outcome, register_all
from thinfilm_gateway.index.levels import Level
from thinfilm_gateway.index.locate import locate
import datetime as dt

def test_smoke(database):
    batch = series_of(5)
    assert register_all(database, batch, QUIET) == [Outcome.STORED]*5
    assert register_all(database, batch, dt.timedelta(0)) == [Outcome.IDENTICAL]*5
    assert register_all(database, series_of(2), dt.timedelta(0)) == [Outcome.STORED]*2
    with database.session() as s:
        job = jobs.claim(s, "w", dt.timedelta(seconds=9), ["compress.cpu"])
        assert job is not None
        p = pending(s, job.series_pk)
        record_container(s, "k", 5, ["raw"], [Placement(i.instance_pk, n, 3) for n,i in enumerate(p)])
        assert jobs.finish(s, job.id, "w")
    with database.reading() as s:
        assert len(locate(s, Level.IMAGE, {"SOPInstanceUID": [b.sop_instance_uid for b in batch]}))==5
