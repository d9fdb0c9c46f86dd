import re
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from thinfilm_gateway.config import ENVIRONMENT_PREFIX, ConfigError, Peer, Settings, load
from thinfilm_gateway.policy.rules import LossyRule, matching_rule

CONFIGURATION = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
        monkeypatch.delenv(name)


def write(folder: Path, text: str) -> Path:
    file = folder / "thinfilm.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_anything_the_defaults_hold():
    assert load() == Settings()


def test_the_command_line_wins_over_the_environment_which_wins_over_the_file(tmp_path, monkeypatch):
    file = write(tmp_path, "dicom_port = 1\nhttp_port = 1\nreceivers = 1\n")
    monkeypatch.setenv("THINFILM_DICOM_PORT", "2")
    monkeypatch.setenv("THINFILM_HTTP_PORT", "2")
    settings = load(file, dicom_port=3, http_port=None)
    assert (settings.dicom_port, settings.http_port, settings.receivers) == (3, 2, 1)


def test_an_unknown_key_in_the_file_is_refused_with_the_nearest_known_one(tmp_path):
    with pytest.raises(ConfigError, match=r"^ae_tittle is an unknown setting in .*; did you mean ae_title\.$"):
        load(write(tmp_path, 'ae_tittle = "X"'))


def test_an_unknown_key_of_a_peer_is_refused_with_the_nearest_known_one(tmp_path):
    with pytest.raises(ConfigError, match=r"^prot is an unknown key of a peer in .*; did you mean port\.$"):
        load(write(tmp_path, '[[peers]]\nae_title = "A"\nhost = "h"\nprot = 104'))


def test_an_unknown_environment_variable_is_refused_with_the_nearest_known_one(monkeypatch):
    monkeypatch.setenv("THINFILM_DICM_PORT", "104")
    with pytest.raises(ConfigError, match=r"^THINFILM_DICM_PORT is .*; did you mean THINFILM_DICOM_PORT\.$"):
        load()


def test_free_ports_may_be_asked_for_more_than_once(tmp_path):
    file = write(tmp_path, "dicom_port = 0\ndicom_tls_port = 0\nhttp_port = 0")
    assert load(file) == Settings(dicom_port=0, dicom_tls_port=0, http_port=0)


def test_no_setting_takes_a_number_that_is_none_or_endless():
    for key, field in Settings.model_fields.items():
        if field.annotation is float:
            for value in (float("inf"), float("nan"), 1e10):
                with pytest.raises(ConfigError, match=f"^The setting {key} on the command line is wrong"):
                    load(**{key: value})


def test_the_folder_of_the_tests_is_not_a_setting_and_not_refused(monkeypatch):
    monkeypatch.setenv("THINFILM_DATA", "somewhere")
    assert load() == Settings()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("dicom_port = 70000", r"The setting dicom_port in .* is wrong: .* 65535, not 70000\."),
        ('ae_title = "SEVENTEEN LETTERS"', r"The setting ae_title in .* is wrong: .* 16 characters"),
        (
            '[[peers]]\nae_title = "A"\nport = 104',
            r"The setting peers\.0 in .* is wrong: a peer with a port needs a host\.$",
        ),
        (
            '[[peers]]\nae_title = "A"\nnetwork = "10.1.2"',
            r"The setting peers\.0\.network in .* is wrong: .*, not '10\.1\.2'\.$",
        ),
        ('unknown_peers = "some"', r"The setting unknown_peers in .* is wrong: .*'loopback', 'all' or 'none'.*\.$"),
        ('[[peers]]\nhost = "h"', r"The setting peers\.0\.ae_title in .* is wrong: a peer needs an ae_title\.$"),
        ('peers = "x"', r"The setting peers in .* is wrong: it is a list of tables, each with an ae_title, not 'x'\.$"),
        ("peers = 5", r"The setting peers in .* is wrong: it is a list of tables, each with an ae_title, not 5\.$"),
        ('peers = ["x"]', r"The setting peers\.0 in .* is wrong: a peer is a table with an ae_title, not 'x'\.$"),
        (
            '[[peers]]\nae_title = "A"\nhost = "h"\nallow = ["print"]',
            r"The setting peers\.0\.allow\.0 in .* 'echo', 'store'",
        ),
        ("dicom_port = ", r"The configuration file .* is not TOML"),
        (
            "dicom_port = 104\ndicom_tls_port = 104",
            r"The settings are wrong: dicom_port and dicom_tls_port are both 104;",
        ),
        ("dicom_tls_port = 8080", r"The settings are wrong: dicom_tls_port and http_port are both 8080;"),
        ("dicom_port = 8080", r"The settings are wrong: dicom_port and http_port are both 8080;"),
        ("gpu_workers = true", r"The settings are wrong: gpu_workers needs a broker_url, by which they are reached\.$"),
        (
            "lossless_codecs = []",
            r"The setting lossless_codecs in .* is wrong: it names at least one codec, not \[\]\.$",
        ),
        ('data_dir = ""', r"The setting data_dir in .* is wrong: it names a folder, not ''\.$"),
        (
            '[[peers]]\nae_title = "A"\nhost = "h"\nport = 0',
            r"The setting peers\.0\.port in .* is wrong: .* 1, not 0\.$",
        ),
        ("network_timeout_seconds = inf", r"The setting network_timeout_seconds in .*, not inf\.$"),
        ("network_timeout_seconds = nan", r"The setting network_timeout_seconds in .*, not nan\.$"),
        ("network_timeout_seconds = 86401", r"The setting network_timeout_seconds in .* 86400, not 86401\.$"),
        ("series_quiet_seconds = 1e300", r"The setting series_quiet_seconds in .* 315360000, not 1e\+300\.$"),
        ("job_lease_seconds = inf", r"The setting job_lease_seconds in .*, not inf\.$"),
        ("maximum_pdu_bytes = 4294967296", r"The setting maximum_pdu_bytes in .* 4294967295, not 4294967296\.$"),
        ("receivers = 100000", r"The setting receivers in .* 1024, not 100000\.$"),
        ("local_workers = 100000", r"The setting local_workers in .* 1024, not 100000\.$"),
    ],
)
def test_a_wrong_file_is_refused_in_one_sentence_that_names_the_setting(tmp_path, text, complaint):
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_missing_file_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"The configuration file .* cannot be read: No such file or directory\."):
        load(tmp_path / "none.toml")


def test_the_environment_names_the_file_of_whoever_is_given_none(tmp_path, monkeypatch):
    (tmp_path / "other.toml").write_text("receivers = 7\n")
    monkeypatch.setenv("THINFILM_CONFIG", str(write(tmp_path, "receivers = 3\n")))
    assert load().receivers == 3
    assert load(tmp_path / "other.toml").receivers == 7


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("none.toml", r"^The configuration file none\.toml cannot be read: No such file or directory\.$"),
        ("", r"^THINFILM_CONFIG is empty; let it name the settings file, or unset it\.$"),
    ],
)
def test_a_file_that_the_environment_names_and_that_is_not_there_is_refused(tmp_path, monkeypatch, name, complaint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THINFILM_CONFIG", name)
    with pytest.raises(ConfigError, match=complaint):
        load()


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("THINFILM_RECEIVERS", "many", r"in the environment variable THINFILM_RECEIVERS is wrong"),
        ("THINFILM_PEERS", '[{"ae_title": "A", "host": "h", "prot": 1}]', r"is wrong: a peer has no key prot\.$"),
        ("THINFILM_PEERS", "x", r"THINFILM_PEERS is not JSON"),
        ("THINFILM_PEERS", "[{", r"THINFILM_PEERS is not JSON"),
        ("THINFILM_LOSSY", "x", r"THINFILM_LOSSY is not JSON"),
    ],
)
def test_a_wrong_environment_variable_is_refused_by_name(monkeypatch, name, value, complaint):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=complaint):
        load()


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ('modality = "CT"\nratio = 5.1', r"a ratio of 5\.1 is above the ceiling of 5 that esr-strict has for CT\.$"),
        ('modality = "CT"\nbody_part = "HEAD"\nprofile = "drg-2009"\nratio = 6', r"ceiling of 5 .* for CT HEAD\.$"),
        ('modality = "MG"', r"a lossy rule for modality MG cannot be: Mammograms are kept lossless"),
        ('modality = "NM"', r"a lossy rule for modality NM cannot be"),
        ('modality = "OT"', r"The profile esr-strict has no ceiling for modality OT\.$"),
        ('modality = "CT"\nprofile = "mild"', r"No profile is called 'mild'; choose among car-2008"),
        ('modality = "CT"\ncodec = "jpegls"', r"no lossy codec is called 'jpegls'; choose among "),
        ('modality = "CT"\nbound = 3', r"bound is an unknown key of a lossy rule"),
        ('body_part = "HEAD"', r"a lossy rule needs a modality\.$"),
    ],
)
def test_a_lossy_rule_that_asks_for_what_may_not_be_is_refused_in_a_sentence(tmp_path, rule, complaint):
    file = tmp_path / "thinfilm.toml"
    file.write_text(f"[[lossy]]\n{rule}\ndelay_days = 30\nkeep_original_days = 30\n")
    with pytest.raises(ConfigError, match=complaint):
        load(file)


@pytest.mark.parametrize("days", ["36501", "9999999", "1e7", "inf", "nan", "-1"])
@pytest.mark.parametrize("key", ["delay_days", "keep_original_days"])
def test_days_of_a_lossy_rule_that_no_date_can_be_are_refused_in_a_sentence(tmp_path, key, days):
    file = tmp_path / "thinfilm.toml"
    rule = {"modality": '"CT"', "delay_days": "1", "keep_original_days": "36500"} | {key: days}
    file.write_text("[[lossy]]\n" + "".join(f"{name} = {value}\n" for name, value in rule.items()))
    with pytest.raises(ConfigError, match=rf"^The setting lossy\.0\.{key} in .* is wrong: input should be .*\.$"):
        load(file)


def rules_file(folder, *rules):
    file = folder / "thinfilm.toml"
    file.write_text("".join(f"[[lossy]]\n{rule}\ndelay_days = 1\nkeep_original_days = 1\n" for rule in rules))
    return file


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ('modality = "CT"', 'modality = "CT"', "rule 2, for CT, never holds, since an earlier one is for CT"),
        ('modality = "CT"', 'modality = "CT"\nbody_part = "HEAD"', "for CT HEAD, never holds, .* is for CT"),
        ('modality = "CT"\nbody_part = "HEAD"', 'modality = "CT"\nbody_part = "head"', "never holds, .* CT HEAD"),
    ],
)
def test_a_lossy_rule_that_can_never_hold_is_refused_in_a_sentence(tmp_path, first, second, complaint):
    with pytest.raises(ConfigError, match=rf"^The setting lossy in .* is wrong: .*{complaint}\.$"):
        load(rules_file(tmp_path, first, second))


def test_lossy_rules_go_from_the_narrow_to_the_wide_and_body_parts_are_read_in_any_case(tmp_path):
    head, rest = 'modality = "CT"\nbody_part = "head"', 'modality = "CT"'
    rules = load(rules_file(tmp_path, head, 'modality = "MR"', rest)).lossy
    assert matching_rule(rules, "CT", "HEAD") == rules[0]
    assert matching_rule(rules, "CT", "CHEST") == matching_rule(rules, "CT", "") == rules[2]


def test_a_wrong_option_is_blamed_on_the_command_line():
    with pytest.raises(ConfigError, match="The setting dicom_port on the command line is wrong"):
        load(dicom_port=-1)


def test_a_child_process_loads_the_same_settings_from_its_environment(tmp_path, monkeypatch):
    peer = Peer(
        ae_title="READING 1", host="10.1.2.3", port=104, network="10.1.2.0/24", tls=True, allow=("echo", "find")
    )
    settings = Settings(
        data_dir=tmp_path,
        peers=(peer, Peer(ae_title="CT1", certificate_subject="CN=ct1")),
        lossless_codecs=("zstd", "jpegls"),
        series_quiet_seconds=0.5,
        dicom_tls_port=2762,
        tls_ca=tmp_path / "ca.pem",
        check_called_ae_title=False,
        unknown_peers="none",
        lossy=(LossyRule(modality="CT", body_part="HEAD", ratio=4, delay_days=1.5, keep_original_days=30),),
    )
    for name, value in settings.to_environment().items():
        monkeypatch.setenv(name, value)
    assert load() == settings
    assert load().model_fields_set == settings.model_fields_set, "what nobody named stays so"


@pytest.mark.parametrize("model", [Settings, Peer, LossyRule])
def test_every_setting_is_documented(model):
    documented = set(re.findall(r"^\| `(\w+)` \|", CONFIGURATION.read_text(encoding="utf-8"), re.MULTILINE))
    assert set(model.model_fields) <= documented


def test_nothing_is_documented_that_is_not_a_setting():
    documented = set(re.findall(r"^\| `(\w+)` \|", CONFIGURATION.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented == set(Settings.model_fields) | set(Peer.model_fields) | set(LossyRule.model_fields)


def test_the_documented_defaults_are_the_real_ones():
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", CONFIGURATION.read_text(encoding="utf-8"), re.MULTILINE))
    for key, text in rows.items():
        default = Settings.model_fields[key].default
        assert default is not PydanticUndefined
        shown = (
            ", ".join(default)
            if isinstance(default, tuple)
            else f"{default:g}"
            if isinstance(default, float)
            else str(default).lower()  # true and false as in TOML
            if isinstance(default, bool)
            else str(default)
        )
        assert text == shown, key
