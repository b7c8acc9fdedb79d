"""Every setting is shown by `config show`, and a wrong value of it is found by `hevcq doctor`."""

import pytest

from hevcq.errors import ConfigError
from hevcq.settings.loader import leaves, load, variable
from hevcq.settings.model import Settings

KEYS = [key for key, _ in leaves(Settings)]
NONSENSE = "no\tsuch thing"
TAKES_ANY = {
    # a check of its own looks at what is there
    "data_dir", "scratch_dir", "profiles_dir", "postgres.files_dir",
    "ffmpeg", "metric_ffmpeg", "ingest.profiles", "aws.profiles",
    "schedule.gate_command", "web.host",
    # only the service that is named can say
    "aws.region", "aws.endpoint_url", "aws.input_bucket", "aws.output_bucket", "aws.topic_arn",
    "aws.table", "postgres.dsn", "web.oidc.issuer",
    "web.oidc.client_id", "web.oidc.client_secret",
    "web.oidc.operator_group", "web.oidc.logout_url",
    # names and secrets are what a person says they are
    "web.operators", "web.session_key",
}  # fmt: skip


@pytest.mark.parametrize("key", [key for key in KEYS if key not in TAKES_ANY])
def test_a_wrong_value_is_refused_by_the_name_of_its_setting(key, monkeypatch):
    monkeypatch.setenv(variable(key), NONSENSE)
    with pytest.raises(ConfigError) as refused:
        load()
    assert key in str(refused.value) or variable(key) in str(refused.value)
