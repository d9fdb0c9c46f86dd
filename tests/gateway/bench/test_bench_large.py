import json

from rich.console import Console

from thinfilm_gateway.bench import large_object


def test_a_large_object_goes_in_and_comes_out_of_spool_and_container(monkeypatch):
    monkeypatch.setattr(large_object, "FRAMES", 16)
    figures = large_object.run(Console(quiet=True))
    document = json.loads(json.dumps(figures.to_json()))
    assert document["object_bytes"] > 16 * 512 * 1024
    assert [row["case"] for row in document["rows"]] == [
        "C-STORE", "C-GET out of the spool", "C-STORE", "compress by jpegls", "C-GET out of a container",
    ]  # fmt: skip
    assert figures.table().row_count == 5
