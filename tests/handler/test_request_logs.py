"""What TorchServe writes about each request stays out of the log; what concerns the worker does not."""

import logging

import pytest

from request_logs import drop_lines_about_requests


@pytest.fixture(autouse=True)
def root_filters():
    before = logging.getLogger().filters[:]
    yield
    logging.getLogger().filters[:] = before


def test_lines_about_requests_are_dropped_and_others_are_not(caplog):
    drop_lines_about_requests()
    drop_lines_about_requests()
    assert len(logging.getLogger().filters) == 1
    with caplog.at_level(logging.INFO):
        logging.info("Backend received inference at: %d", 7)
        logging.warning("Failed json decoding of input data. Forwarding encoded payload", exc_info=True)
        logging.error("Backend worker process died.")
        logging.getLogger("cifar_handler").info("Version 1.0 on cpu")
        logging.getLogger("ts.service").warning("Failed json decoding, says another logger")
    assert [record.getMessage() for record in caplog.records] == [
        "Backend worker process died.",
        "Version 1.0 on cpu",
        "Failed json decoding, says another logger",
    ]
