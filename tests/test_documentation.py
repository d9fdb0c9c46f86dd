"""The documents say what the code does: commands, links, and the conformance statement against a running receiver."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from pynetdicom import AE, build_context
from pynetdicom.sop_class import _STORAGE_CLASSES

from support.receiver import Running, running_receiver
from thinfilm_gateway import cli
from thinfilm_gateway.archive.derivation import METHODS
from thinfilm_gateway.config import CONFIG_FILE_VARIABLE, Settings
from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.tls import requestor_context
from thinfilm_gateway.index.derived import DERIVED_ATTRIBUTES
from thinfilm_gateway.index.keys import KEY_ATTRIBUTES
from thinfilm_workers.cli import celery

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CONFORMANCE = (ROOT / "docs" / "conformance.md").read_text(encoding="utf-8")

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_LS_LOSSLESS = "1.2.840.10008.1.2.4.80"
PRIVATE = "1.3.6.1.4.1.9590.100.1"
MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
CONTEXTS_AT_A_TIME = 128


def section(number: str) -> str:
    """Return a section of the conformance statement with what is below it."""
    level = "#" * (number.count(".") + 2)
    found = re.search(rf"^{level} {re.escape(number)} .*?(?=^#{{2,{len(level)}}} |\Z)", CONFORMANCE, re.M | re.S)
    assert found, f"The conformance statement has no section {number}."
    return found.group()


def rows(number: str) -> list[list[str]]:
    """Return the rows of the tables of a section, without their heads."""
    lines = [line for line in section(number).splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rulers = {index for index, row in enumerate(cells) if set(row[0]) == {"-"}}
    return [row for index, row in enumerate(cells) if index not in rulers and index + 1 not in rulers]


def uids(number: str) -> list[str]:
    return [row[1] for row in rows(number)]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_receiver(tmp_path_factory.mktemp("receiver")) as running:
        yield running


def accepted(receiver: Running, proposed: Iterable[tuple[str, list[str]]]) -> dict[str, str]:
    """Propose (SOP class, transfer syntaxes); return the accepted ones with the transfer syntax that was chosen."""
    contexts = [build_context(sop_class, syntaxes) for sop_class, syntaxes in proposed]
    found: dict[str, str] = {}
    for first in range(0, len(contexts), CONTEXTS_AT_A_TIME):
        association = AE().associate("127.0.0.1", receiver.port, contexts[first : first + CONTEXTS_AT_A_TIME])
        assert association.is_established
        found |= {str(c.abstract_syntax): str(c.transfer_syntax[0]) for c in association.accepted_contexts}
        association.release()
    return found


def test_every_storage_class_of_the_statement_is_accepted_and_none_is_missing_from_it(receiver):
    stated = uids("9.1")
    assert set(stated) == set(_STORAGE_CLASSES.values())
    assert set(accepted(receiver, [(uid, [JPEG_LS_LOSSLESS]) for uid in stated])) == set(stated)


def test_every_transfer_syntax_of_the_statement_is_accepted_for_storage(receiver):
    for uid in uids("9.2"):
        assert accepted(receiver, [(CT_IMAGE_STORAGE, [uid])]) == {CT_IMAGE_STORAGE: uid}


def test_private_classes_and_transfer_syntaxes_are_accepted(receiver):
    assert accepted(receiver, [(f"{PRIVATE}.1", [f"{PRIVATE}.2"])]) == {f"{PRIVATE}.1": f"{PRIVATE}.2"}


def test_of_several_transfer_syntaxes_the_first_is_taken_and_big_endian_last(receiver):
    compressed_first = [JPEG_LS_LOSSLESS, EXPLICIT_VR_LITTLE_ENDIAN]
    big_endian_first = [EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]
    assert accepted(receiver, [(CT_IMAGE_STORAGE, compressed_first)])[CT_IMAGE_STORAGE] == JPEG_LS_LOSSLESS
    assert accepted(receiver, [(CT_IMAGE_STORAGE, big_endian_first)])[CT_IMAGE_STORAGE] == IMPLICIT_VR_LITTLE_ENDIAN


@pytest.mark.parametrize("number", ["5.1", "5.3", "5.4", "5.5", "5.7"])
def test_every_service_class_of_the_statement_is_accepted_in_every_transfer_syntax_of_it(receiver, number):
    classes = [row[1] for row in rows(number) if row[-1] == "SCP"]
    assert classes
    syntaxes = [row[1] for row in rows("5.6") if row[1].startswith("1.2.840.10008.1.2")]
    assert len(syntaxes) == 4
    for syntax in syntaxes:
        assert accepted(receiver, [(uid, [syntax]) for uid in classes]) == dict.fromkeys(classes, syntax)


def test_what_the_statement_says_is_not_supported_is_rejected(receiver):
    classes = (MODALITY_WORKLIST, CT_IMAGE_STORAGE)
    proposed = [(uid, [EXPLICIT_VR_LITTLE_ENDIAN]) for uid in classes]
    assert list(accepted(receiver, proposed)) == [CT_IMAGE_STORAGE]


def test_the_statement_has_the_status_codes_that_the_gateway_sends_and_no_others():
    sent = {value for name, value in vars(status).items() if name.isupper() and name != "ERROR_COMMENT_CHARACTERS"}
    stated = {int(row[0], 16) for row in rows("7") if re.fullmatch("[0-9A-F]{4}", row[0])}
    assert stated == sent


def test_the_statement_has_the_cipher_suites_that_the_gateway_offers_in_their_order():
    context = requestor_context(Settings(), check_hostname=True)
    offered = [cipher["name"] for cipher in context.get_ciphers()]  # those of TLS 1.3 in the words of the standard
    standard = [re.sub(r"(ECDSA|RSA)-AES(\d+)-", r"\1-WITH-AES-\2-", name).replace("-", "_") for name in offered]
    assert uids("8.1") == [name if name.startswith("TLS_") else f"TLS_{name}" for name in standard]


def test_the_statement_has_the_keys_of_queries_with_their_matching():
    keys = [*KEY_ATTRIBUTES.items(), *DERIVED_ATTRIBUTES.items()]
    real = {(key.level.name, name, key.matching.value if key.matching else "none") for name, key in keys}
    assert {(row[0], row[1], row[3]) for row in rows("5.3") if len(row) == 4} == real


def test_the_statement_has_the_terms_of_the_lossy_methods():
    assert {row[0].strip("`"): row[1] for row in rows("5.8") if row[0].startswith("`THINFILM_")} == {
        term: codec for codec, term in METHODS.items()
    }


def test_the_readme_has_every_command():
    cli._add_commands_of_other_packages()
    groups = [("", cli.app), ("db ", cli.db), ("bench ", cli.bench), ("celery ", celery)]
    commands = {
        prefix + (command.name or command.callback.__name__)
        for prefix, group in groups
        for command in group.registered_commands
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert {command for command in commands if f"`thinfilm {command}" not in readme} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_compose_file_names_images_settings_and_conditions_that_exist():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    services = compose["services"]
    assert set(services) == {"postgres", "redis", "migrate", "gateway", "worker-cpu", "beat", "worker-gpu"}
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    for name, service in services.items():
        if "build" in service:
            assert (ROOT / service["build"]["dockerfile"]).is_file(), name
        for other, condition in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if other == "migrate" else "service_healthy"
            assert condition == {"condition": expected}, name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in {*compose["volumes"], "./settings"}, name
        known = {f"THINFILM_{key.upper()}" for key in cli.config.Settings.model_fields} | {CONFIG_FILE_VARIABLE}
        settings = {key for key in service.get("environment", {}) if key.startswith("THINFILM_")}
        assert settings <= known, name
        assert name == "migrate" or "healthcheck" in service or "build" in service, name


def test_every_process_of_the_compose_file_takes_the_peers_and_the_rest_from_one_settings_file(tmp_path, monkeypatch):
    """As the documented steps have it: a copy of docker/thinfilm.toml in the folder that all containers see."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    settings_file = tmp_path / "thinfilm.toml"
    settings_file.write_text((ROOT / "docker" / "thinfilm.toml").read_text(encoding="utf-8"), encoding="utf-8")
    ours = {name: service for name, service in compose["services"].items() if "build" in service}
    assert set(ours) == {"migrate", "gateway", "worker-cpu", "beat", "worker-gpu"}
    for name, service in ours.items():
        assert "./settings:/etc/thinfilm:ro" in service["volumes"], name
        assert service["environment"][CONFIG_FILE_VARIABLE] == f"/etc/thinfilm/{settings_file.name}", name
        with monkeypatch.context() as environment:
            for key, value in service["environment"].items():
                environment.setenv(key, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", re.sub(r"\$\{\w+:\?.*?\}", "secret", value)))
            environment.setenv(CONFIG_FILE_VARIABLE, str(settings_file))
            settings = cli.config.load()
        assert [peer.ae_title for peer in settings.peers] == ["CT1", "READING1"], name
        assert settings.database_url == "postgresql+psycopg://thinfilm:secret@postgres/thinfilm", name
        assert settings.broker_url == "redis://redis:6379/0", name
    published = {port.split(":")[-1] for port in ours["gateway"]["ports"]}
    assert published == {"11112", "2762", "8080"}
    assert "# dicom_tls_port = 2762" in settings_file.read_text(encoding="utf-8")


def test_the_services_of_systemd_are_restarted_and_keep_their_files_to_themselves():
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    units = operations.split("    [Unit]\n")[1:]
    services = [re.search(r"    ExecStart=\S+/thinfilm (.*)", unit)[1] for unit in units]
    assert services == [
        f"{program} --config /etc/thinfilm.toml" for program in ("serve", "celery worker", "celery beat")
    ]
    for unit in units:
        section = unit.split("[Install]")[0]
        assert {"UMask=0077", "Restart=always", "LimitNOFILE=65536"} <= {line.strip() for line in section.splitlines()}


def test_the_images_run_as_a_user_without_rights_and_say_how_they_are():
    for file in sorted((ROOT / "docker").glob("Dockerfile.*")):
        text = file.read_text(encoding="utf-8")
        assert re.search(r"^USER thinfilm$", text, re.M), file
        assert re.search(r"^HEALTHCHECK ", text, re.M), file


def test_the_constraints_pin_every_dependency_exactly():
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in pins.splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9.]+", line)] == []
    assert "torch==2.13.0" in lines
