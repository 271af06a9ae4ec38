"""Experiments on a gateway and a worker over a scripted engine: opened, lived through, decided by themselves."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.stack import stack
from tests.e2e.houses import House, asked, eventually, open_house
from tests.e2e.verbs import verb
from tests.unit.gateway.experimenting.ear import Ear

pytestmark = pytest.mark.slow

UP = {"name": "thumbs_up_rate", "role": "primary", "window_s": 5}
LENGTH = {"name": "output_length", "role": "primary", "window_s": 5}
NO_WORSE = {"name": "liked", "source": "thumbs_up_rate", "role": "guardrail", "margin": 0.02, "window_s": 5}
#: Below a hundred units in an arm no interval is given.
USERS = 300


@pytest.fixture(scope="module")
def ear() -> Iterator[Ear]:
    found = Ear()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, ear: Ear) -> Iterator[House]:
    """A house whose worker looks five times a second."""
    folders = str(tmp_path_factory.getbasetemp())
    with stack(source_folders=folders, experiment_every_s="0.2", approvals_webhook=ear.url) as running:
        yield open_house(running, engines=1)


def two_versions(house: House, name: str, folder: Path, *, seed: int) -> None:
    for number in (1, 2):
        assert house.register(name, folder / f"{name}-{number}", seed=seed + number)["number"] == number


def body(name: str, *metrics: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "arms": [{"name": "old", "number": 1}, {"name": "new", "number": 2}],
        "metrics": list(metrics or (UP,)),
        "ramp": [{"share": 5000, "at_least_s": 0}],
        "horizon": 200,
        **fields,
    }


def opened(house: House, name: str, *metrics: dict[str, Any], **fields: Any) -> str:
    """An experiment's id, once every gateway routes by it."""
    with house.client() as client:
        made = client.post("/v1/experiments", json=body(name, *metrics, **fields))
        assert made.status_code == 201, made.text
    routed(house, name)
    return str(made.json()["id"])


def routed(house: House, name: str, *, still: bool = True) -> None:
    """Return when the gateway routes by an experiment over this name, or does so no more."""
    probe = asked("ready?", model=name, user="probe")
    with house.client() as client:
        eventually(lambda: ("x-graftline-arm" in client.post("/v1/chat/completions", json=probe).headers) is still)


def shown(house: House, id_: str, **query: Any) -> dict[str, Any]:
    with house.client() as client:
        answer = client.get(f"/v1/experiments/{id_}", params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def thumbs(found: dict[str, Any]) -> int:
    """Up, in all arms; they come after the units."""
    return sum(arm["thumbs_up"] for arm in found["counts"]["arms"].values())


def live(house: House, name: str, likes: Callable[[str], bool], users: int = USERS) -> Counter[str]:
    """Each user asks once and says whether they liked it, but every tenth the other way; how many were in each arm, and
    liked it (`ARM+`). Every answer must come."""
    arms: Counter[str] = Counter()
    with house.client() as client:
        for n in range(users):
            answer = client.post("/v1/chat/completions", json=asked("hello", model=name, user=f"user-{n}"))
            assert answer.status_code == 200, answer.text
            arm = answer.headers.get("x-graftline-arm", "")
            liked = likes(arm) == (n % 10 > 0)
            arms.update([arm, f"{arm}+"] if liked else [arm])
            word = {"target": answer.json()["id"], "kind": "thumbs", "value": 1 if liked else -1}
            said = client.post("/v1/feedback", json={**word, "rater": f"user-{n}"})
            assert said.status_code == 200, said.text
    return arms


def served(house: House, name: str) -> str:
    return str(house.chat(model=name).headers["x-graftline-adapter"].partition("@")[0])


def stage(house: House, id_: str, wanted: str, timeout_s: float = 60.0) -> dict[str, Any]:
    eventually(lambda: shown(house, id_)["stage"] == wanted, timeout_s=timeout_s)
    return shown(house, id_, counts=True)


def test_a_better_arm_is_promoted_by_itself_and_counts_are_the_clients(lab: House, tmp_path: Path) -> None:
    two_versions(lab, "better", tmp_path, seed=100)
    id_ = opened(lab, "better")
    arms = live(lab, "better", lambda arm: arm == "new")
    assert arms["old"] + arms["new"] == USERS
    assert min(arms["old"], arms["new"]) > 100
    found = stage(lab, id_, "promoted")
    eventually(lambda: served(lab, "better") == "better:2")
    assert found["chosen"] == "new"
    assert found["estimates"][0]["lower"] > 0.2
    counts = found["counts"]["arms"]
    probes = sum(arm["units"] for arm in counts.values()) - USERS
    assert probes == 1  # the user who waited for the experiment to begin
    for arm, found_there in counts.items():
        up = arms[f"{arm}+"]
        assert (found_there["thumbs_up"], found_there["thumbs_down"]) == (up, arms[arm] - up)
    assert found["counts"]["mixed_units"] == found["counts"]["unexposed"] == found["counts"]["unknown_arm"] == 0
    with lab.client() as client:
        rows = client.get(f"/v1/experiments/{id_}/rulings", params={"limit": 1000}).json()["data"]
    assert rows[0]["verdict"] == rows[1]["verdict"] == "promote"
    assert rows[-1]["verdict"] == "open"


def test_a_worse_arm_is_rolled_back_by_itself_and_no_request_fails(lab: House, tmp_path: Path) -> None:
    two_versions(lab, "worse", tmp_path, seed=200)
    id_ = opened(lab, "worse", LENGTH, NO_WORSE)
    live(lab, "worse", lambda arm: arm == "old")
    found = stage(lab, id_, "rolled_back")
    assert "liked past the margin" in found["waits_for"][0]
    routed(lab, "worse", still=False)
    assert served(lab, "worse") == "worse:1"
    assert live(lab, "worse", lambda arm: True, users=20)[""] == 20


def test_a_promotion_waits_for_a_person_who_is_told(lab: House, ear: Ear, tmp_path: Path) -> None:
    two_versions(lab, "asked", tmp_path, seed=300)
    id_ = opened(lab, "asked", ask_before=["promote"], ask_role="operator")
    live(lab, "asked", lambda arm: arm == "new")
    with lab.client() as client:
        find = {"experiment": id_}
        eventually(lambda: client.get("/v1/approvals", params=find).json()["data"], timeout_s=30)
        (proposal,) = client.get("/v1/approvals", params=find).json()["data"]
    assert (proposal["verdict"], proposal["arm"], proposal["answer"]) == ("promote", "new", "pending")
    assert served(lab, "asked") == "asked:1"
    eventually(lambda: [each for each in ear.heard if each["id"] == proposal["id"]])

    engineer, _ = lab.new_key(roles=["engineer"])
    operator, _ = lab.new_key(name="olga", roles=["operator"])
    path = f"/v1/approvals/{proposal['id']}"
    with lab.client(engineer) as client:
        assert client.post(path, json={"answer": "approve"}).status_code == 403
    with lab.client(operator) as client:
        assert client.post(path, json={"answer": "perhaps"}).status_code == 400
        answered = client.post(path, json={"answer": "approve", "why": "seen"}).json()
        assert (answered["answer"], answered["decided_by"], answered["why"]) == ("approved", "default/olga", "seen")
        again = client.post(path, json={"answer": "reject"})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "proposal_over")
    stage(lab, id_, "promoted")
    eventually(lambda: served(lab, "asked") == "asked:2")
    with lab.client() as client:
        (done,) = client.get("/v1/approvals", params={**find, "all": True}).json()["data"]
    assert (done["answer"], done["decided_by"]) == ("done", "default/olga")


def test_what_cannot_be_opened_gets_a_typed_error(lab: House, tmp_path: Path) -> None:
    two_versions(lab, "refused", tmp_path, seed=400)
    backwards = [{"share": 1000, "at_least_s": 0}, {"share": 500, "at_least_s": 0}]
    cases: list[tuple[dict[str, Any], int, str]] = [
        (body("refused", alias="nightly"), 404, "adapter_not_found"),
        (body("nobody"), 404, "adapter_not_found"),
        (body("no such"), 400, "bad_adapter_name"),
        (body("refused", ramp=backwards), 400, "bad_experiment"),
        (body("refused", arms=[{"name": "old", "number": 1}, {"name": "new", "number": 3}]), 400, "bad_experiment"),
        (body("refused", arms=[{"name": "old", "number": "1"}]), 400, "invalid_value"),
        (body("refused", arms=[{"name": f"a{n}", "number": n + 1} for n in range(20)]), 400, "bad_experiment"),
        (body("refused", colour="red"), 400, "invalid_value"),
        (body("refused", note="x" * 3000), 400, "invalid_value"),
        (body("refused", horizon=10**400), 400, "bad_experiment"),
        (body("refused", promote_after_s=10**400), 400, "invalid_value"),
        (body("refused", metrics=[UP] * 5000), 400, "invalid_value"),
    ]
    with lab.client() as client:
        for sent, status, code in cases:
            answer = client.post("/v1/experiments", json=sent)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
        for text in ('{"name": "refused", "alpha": NaN}', "{", "[]", "null", '{"name": "\\ud800"}'):
            answer = client.post("/v1/experiments", content=text, headers={"content-type": "application/json"})
            assert answer.status_code == 400, (text, answer.text)
        both = client.post("/v1/experiments", json=body("refused", ramp=backwards, unit="planet", alpha=7))
        assert len(both.json()["error"]["reasons"]) == 3
        for id_ in ("exp-none", "%00", "x" * 500):
            assert client.get(f"/v1/experiments/{id_}").status_code in (400, 404)


def test_one_alias_has_one_experiment_and_what_was_stopped_stays_stopped(lab: House, tmp_path: Path) -> None:
    two_versions(lab, "once", tmp_path, seed=500)
    id_ = opened(lab, "once")
    with lab.client() as client:
        second = client.post("/v1/experiments", json=body("once"))
        assert (second.status_code, second.json()["error"]["code"]) == (409, "experiment_conflict")
        assert second.headers["x-should-retry"] == "false"
        stopped = client.post(f"/v1/experiments/{id_}/stop", json={"why": "enough"}).json()
        assert (stopped["stage"], stopped["waits_for"]) == ("stopped", ["enough"])
        again = client.post(f"/v1/experiments/{id_}/stop", json={})
        assert (again.status_code, again.json()["error"]["code"]) == (409, "experiment_over")
    eventually(lambda: "x-graftline-arm" not in lab.chat(model="once", user="probe").headers)


def test_roles_say_who_opens_and_who_reads(lab: House, tmp_path: Path) -> None:
    two_versions(lab, "roles", tmp_path, seed=600)
    keys = {role: lab.new_key(roles=[role])[0] for role in ("user", "engineer", "operator", "auditor")}
    ids = [opened(lab, "roles")]
    with lab.client() as client:
        client.post(f"/v1/experiments/{ids[0]}/stop", json={})
    for role, key in keys.items():
        with lab.client(key) as client:
            made = client.post("/v1/experiments", json=body("roles"))
            assert made.status_code == (201 if role == "engineer" else 403), (role, made.text)
            if made.status_code == 201:
                ids.append(made.json()["id"])
            reads = 403 if role == "user" else 200
            for path in ("", f"/{ids[0]}", f"/{ids[0]}/rulings"):
                assert client.get(f"/v1/experiments{path}").status_code == reads, (role, path)
            assert client.get("/v1/approvals").status_code == reads
            stopped = client.post(f"/v1/experiments/{ids[-1]}/stop", json={}).status_code
            assert stopped == (200 if role == "engineer" else 403), role
    assert len(ids) == 2


def test_too_few_slots_refuse_to_open(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folders = str(tmp_path_factory.getbasetemp())
    with stack(source_folders=folders, engine_max_loras="2") as running:
        house = open_house(running, engines=1)
        two_versions(house, "tight", tmp_path, seed=700)
        with house.client() as client:
            answer = client.post("/v1/experiments", json=body("tight"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "no_slots")


def test_the_self_test_runs_by_itself_and_makes_way(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folders = str(tmp_path_factory.getbasetemp())
    with stack(source_folders=folders, experiment_every_s="0.2", selftest_alias="support@live") as running:
        house = open_house(running, engines=1)
        two_versions(house, "support", tmp_path, seed=800)
        eventually(lambda: [each for each in active(house) if each["selftest"]])
        real = opened(house, "support")
        assert [each["id"] for each in active(house)] == [real]
        with house.client() as client:
            client.post(f"/v1/experiments/{real}/stop", json={})
        eventually(lambda: [each for each in active(house) if each["selftest"]])


def active(house: House) -> list[dict[str, Any]]:
    with house.client() as client:
        found: list[dict[str, Any]] = client.get("/v1/experiments", params={"active": True}).json()["data"]
    return found


def graftline(house: House, *args: str) -> subprocess.CompletedProcess[str]:
    return verb({**house.running.env, "COLUMNS": "220"}, *args)


@pytest.mark.parametrize("remote", [False, True], ids=["here", "elsewhere"])
def test_the_cli_opens_shows_and_stops(remote: bool, lab: House, tmp_path: Path) -> None:
    name = "far" if remote else "near"
    two_versions(lab, name, tmp_path, seed=900 + 10 * remote)
    (tmp_path / "key").write_text(lab.key)
    where = ["--url", lab.url, "--key-file", str(tmp_path / "key")] if remote else []
    (tmp_path / "e.json").write_text(json.dumps(body(name, UP, NO_WORSE)))
    made = graftline(lab, "experiments", "open", str(tmp_path / "e.json"), *where)
    assert made.returncode == 0, made.stdout + made.stderr
    id_ = made.stdout.split()[0]
    routed(lab, name)
    live(lab, name, lambda arm: True, users=12)
    eventually(lambda: sum(shown(lab, id_)["units"].values()) >= 10)
    eventually(lambda: thumbs(shown(lab, id_, counts=True)) >= 10)
    told = graftline(lab, "experiments", "show", id_, *where)
    assert told.returncode == 0, told.stdout + told.stderr
    for word in ("running, 50 % of the units", "thumbs_up_rate", "liked", "guardrail", "sample ratio: quiet", "hold: "):
        assert word in told.stdout, word
    found = json.loads(graftline(lab, "experiments", "show", id_, "--json", *where).stdout)
    assert (found["object"], found["id"]) == ("experiment", id_)
    assert thumbs(found) >= 10
    assert id_ in graftline(lab, "experiments", "list", "--active", *where).stdout
    again = graftline(lab, "experiments", "open", str(tmp_path / "e.json"), *where)
    assert again.returncode == 1
    assert "error (experiment_conflict)" in again.stdout
    assert f"{id_} is stopped" in graftline(lab, "experiments", "stop", id_, "--why", "enough", *where).stdout
    assert "error (experiment_over)" in graftline(lab, "experiments", "stop", id_, *where).stdout
    assert graftline(lab, "approvals", "list", "--all", *where).returncode == 0
    refused = graftline(lab, "approvals", "approve", f"{id_}.0", *where)
    assert (refused.returncode, "error (experiment_not_found)" in refused.stdout) == (1, True)


def test_options_of_the_cli_open_one_too(lab: House, tmp_path: Path) -> None:
    two_versions(lab, "options", tmp_path, seed=950)
    args = ["--name", "options", "--arm", "old=1", "--arm", "new=2", "--primary", "thumbs_up_rate", "--share", "5000"]
    made = graftline(lab, "experiments", "open", *args, "--guardrail", "error_rate=0.02", "--json")
    found = json.loads(made.stdout)
    assert (found["stage"], found["share"]) == ("running", 5000)
    lacking = graftline(lab, "experiments", "open", "--name", "options")
    assert lacking.returncode == 1
    assert "--primary" in lacking.stdout
    graftline(lab, "experiments", "stop", found["id"])


def test_the_metrics_tell_how_experiments_stand(lab: House) -> None:
    text = httpx.get(f"{lab.url}/metrics", trust_env=False).text
    assert "graftline_feedback_waiting" in text
    assert "graftline_experiment_looked_timestamp_seconds" in text
