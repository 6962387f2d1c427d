"""The acceptance tests that need the API alone, over the proxy and all containers."""

import pytest

from tests.acceptance.test_task_life import (  # noqa: F401 - collected here, with the `api` of this folder
    test_a_batch_is_accepted_as_a_whole_and_every_task_runs,
    test_a_failing_task_is_retried_and_a_permanent_error_is_not,
    test_a_finished_task_is_removed_and_then_unknown,
    test_a_result_is_counted_right,
    test_a_running_task_is_cancelled,
    test_a_scheduled_task_runs_when_it_is_due,
    test_a_task_beyond_its_timeout_is_stopped,
    test_a_task_that_kills_its_worker_fails_with_the_evidence_and_its_neighbours_do_not,
    test_a_waiting_task_is_cancelled_at_once_and_a_repeat_says_the_same,
    test_an_idempotency_key_makes_one_task,
    test_ids_that_are_no_ids_are_refused,
    test_lists_are_paged_and_filtered,
    test_the_docs_page_works_offline,
    test_the_examples_of_every_built_in_type_run,
    test_the_examples_of_the_docs_are_accepted,
)
from tests.acceptance.test_workers import (  # noqa: F401
    test_a_worker_is_added_and_drained_while_a_task_runs_in_it,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")
