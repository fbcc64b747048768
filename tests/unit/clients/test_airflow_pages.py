"""Lists that are longer than a page: a server returns at most `maximum_page_limit` rows, whatever is asked for."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import airflow_client.client
import pytest

from replayctl.clients.airflow import AirflowApi


class Api(AirflowApi):
    """Without a session."""

    def _call(self, what: str, request: Callable[..., Any]) -> Any:
        return request(None)


def api() -> Api:
    return Api("http://airflow", username="u", password="p")


@pytest.mark.parametrize(("limit", "count"), [(10, 10), (100, 100), (101, 101), (220, 220), (1000, 230)])
@pytest.mark.parametrize("most", [100, 50])
def test_the_limit_of_a_list_of_runs_is_ours(
    monkeypatch: pytest.MonkeyPatch, limit: int, count: int, most: int
) -> None:
    rows = [
        SimpleNamespace(
            dag_id="d",
            dag_run_id=f"r{number}",
            state=SimpleNamespace(value="success"),
            start_date=None,
            end_date=None,
            queued_at=None,
            note=None,
        )
        for number in range(230)
    ]

    def get_dag_runs(dag_id: str, *, limit: int, offset: int = 0, **_: object) -> SimpleNamespace:
        return SimpleNamespace(dag_runs=rows[offset : offset + min(limit, most)], total_entries=len(rows))

    monkeypatch.setattr(airflow_client.client, "DagRunApi", lambda _: SimpleNamespace(get_dag_runs=get_dag_runs))
    assert [run.run_id for run in api().runs("d", limit=limit)] == [f"r{number}" for number in range(count)]


@pytest.mark.parametrize("most", [100, 50])
def test_no_dag_is_left_out_between_pages(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    rows = [
        SimpleNamespace(dag_id=f"d{number}", fileloc="", file_token="", is_paused=False, is_stale=False)
        for number in range(230)
    ]

    def get_dags(limit: int, offset: int, **_: object) -> SimpleNamespace:
        return SimpleNamespace(dags=rows[offset : offset + min(limit, most)], total_entries=len(rows))

    monkeypatch.setattr(airflow_client.client, "DAGApi", lambda _: SimpleNamespace(get_dags=get_dags))
    assert [dag.dag_id for dag in api().dags()] == [row.dag_id for row in rows]
