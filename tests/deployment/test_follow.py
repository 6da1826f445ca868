"""What `follow` remembers decides whether a version that was rolled back by hand is deployed again."""

import os

import pytest

from cifar.common.errors import InvalidStateFile
from cifar.deployment.follow import FOLLOWED_NAME, Followed, read_followed

URI = "models:/cifar@champion"


@pytest.mark.parametrize("outcome", ["deployed", "rejected", "refused"])  # the last: written before release 0.2
def test_what_was_done_for_an_alias_is_read(tmp_path, outcome):
    assert read_followed(tmp_path, URI) is None
    (tmp_path / FOLLOWED_NAME).write_text(f'{{"uri": "{URI}", "version": "7", "outcome": "{outcome}"}}')
    assert read_followed(tmp_path, URI) == Followed(URI, "7", outcome)
    assert read_followed(tmp_path, "models:/cifar@other") is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", f'{{"uri": "{URI}", "version": 7, "outcome": "deployed"}}',
     f'{{"uri": "{URI}", "version": "7", "outcome": "perhaps"}}', " " * 100_000],
)  # fmt: skip
def test_a_damaged_file_is_no_reason_to_deploy_again(tmp_path, content):
    file = tmp_path / FOLLOWED_NAME
    file.write_text(content)
    with pytest.raises(InvalidStateFile, match=r"followed\.json does not say .*Remove it"):
        read_followed(tmp_path, URI)
    assert file.read_text() == content


def test_a_pipe_in_its_place_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / FOLLOWED_NAME)
    with pytest.raises(InvalidStateFile, match="no regular file"):
        read_followed(tmp_path, URI)
