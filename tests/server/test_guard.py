import pytest

from cifar.common.addresses import read_addresses
from cifar.common.errors import ConfigUnusable
from cifar.common.project import CONFIG
from cifar.server.guard import check_guarded

TOKENS = "disable_token_authorization=false\n"
NO_TOKENS = "disable_token_authorization=true\n"
SOCKET = "management_address=unix:/tmp/m.sock\n"
NOWHERE = "grpc_management_address=127.255.255.255\n"


@pytest.fixture
def check(tmp_path):
    def check(text):
        path = tmp_path / "config.properties"
        path.write_text(text)
        check_guarded(read_addresses(path))

    return check


def test_the_projects_configuration_is_guarded():
    check_guarded(read_addresses(CONFIG))


@pytest.mark.parametrize("text", [TOKENS, "", TOKENS + "management_address=http://0.0.0.0:8081\n", TOKENS + SOCKET])
def test_with_tokens_which_are_torchserves_default_every_address_will_do(check, text):
    check(text)


@pytest.mark.parametrize(
    "nowhere", [NOWHERE, "grpc_management_address=224.0.0.1\n", "grpc_management_address=255.255.255.255\n"]
)
def test_without_tokens_a_socket_and_an_address_that_takes_no_connection_will_do(check, nowhere):
    check(NO_TOKENS + SOCKET + nowhere)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (NO_TOKENS + NOWHERE, "management_address"),
        (NO_TOKENS + NOWHERE + "management_address=https://127.0.0.1:8444\n", "management_address"),
        (NO_TOKENS.replace("true", "TRUE") + NOWHERE, "management_address"),
        (NO_TOKENS + SOCKET, "grpc_management_address"),
        (NO_TOKENS + SOCKET + "grpc_management_address=localhost\n", "grpc_management_address"),
        (NO_TOKENS + SOCKET + "grpc_management_address=127.0.0.2\n", "grpc_management_address"),
        (NO_TOKENS + SOCKET + "grpc_management_address=::1\n", "grpc_management_address"),
    ],
)
def test_what_others_could_reach_without_a_token_is_rejected_by_its_key(check, text, key):
    with pytest.raises(ConfigUnusable, match=f"^{key} is .*disable_token_authorization=false"):
        check(text)
