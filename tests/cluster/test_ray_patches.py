"""Private parts of Ray are as they are thought to be; where Ray changes one, the test that fails names it."""

import inspect
import sys
from pathlib import Path

import grpc
import pytest
import ray
from ray._private import services
from ray.job_config import JobConfig
from ray.tune.experiment import Trial

from tvt_ray.cluster import ray_patches

pytestmark = pytest.mark.ray


def test_a_head_is_asked_with_this_processs_token(cluster):
    ray_patches.ask_head(cluster, 5.0)
    with pytest.raises(grpc.RpcError) as error:
        ray_patches.ask_head("127.0.0.1:9", 1.0)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE, "ask_head: another answer where nobody listens"


def test_auto_is_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    assert ray_patches.address_of_auto() == "10.0.0.7:6379"


def test_workers_import_from_folders_of_this_process_alone(tmp_path, monkeypatch):
    fresh = vars(JobConfig())
    assert fresh.get("_py_driver_sys_path") == [], "job_config: JobConfig has no list _py_driver_sys_path any more"
    folders = ray_patches.job_config()._py_driver_sys_path
    folders.extend([str(tmp_path), sys.path[-1]])
    assert folders == [sys.path[-1]]
    monkeypatch.syspath_prepend(str(tmp_path))
    folders.extend([str(tmp_path)])
    assert folders == [sys.path[-1], str(tmp_path)]


def test_workers_of_a_driver_that_uv_runs_have_its_environment(monkeypatch):
    from ray._private import ray_constants, worker

    name = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
    used = inspect.getsource(worker._maybe_modify_runtime_env)
    assert f"ray_constants.{name}" in used, "workers_environment: ray.init asks something else before uv's hook"
    monkeypatch.setattr(ray_constants, name, True)
    monkeypatch.delenv(name, raising=False)
    with ray_patches.workers_environment():
        assert getattr(ray_constants, name) is False
    assert getattr(ray_constants, name) is True
    monkeypatch.setenv(name, "1")  # somebody wants it
    with ray_patches.workers_environment():
        assert getattr(ray_constants, name) is True


def test_loopback_stays_loopback_inside_the_block_alone():
    source = inspect.getsource(ray.init)
    assert "_node_ip_address" in source, "on_loopback: ray.init has no _node_ip_address any more"
    original = services.resolve_ip_for_localhost
    with ray_patches.on_loopback() as arguments:
        assert arguments == {"_node_ip_address": "127.0.0.1"}
        assert services.resolve_ip_for_localhost("127.0.0.1") == "127.0.0.1"
    assert services.resolve_ip_for_localhost is original, "on_loopback: what it put aside was not put back"


def test_a_cluster_says_which_nodes_were_announced_to_go(cluster, monkeypatch):
    from ray._private.state import state

    assert ray_patches.leaving_nodes(0.0) == frozenset(), "leaving_nodes: Ray does not list nodes that are drained"
    monkeypatch.setattr(state, "get_draining_nodes", lambda: {"any time": 0, "after 90 s": 90_000})
    assert ray_patches.leaving_nodes(149.0) == {"any time", "after 90 s"}
    assert ray_patches.leaving_nodes(151.0) == {"any time"}  # the other did not go


def test_a_trial_says_which_actor_it_has_and_forgets_its_last_result():
    trial = Trial("any", stub=True)
    state = vars(trial.temporary_state)
    assert "ray_actor" in state, "actor_of: Trial.temporary_state has no ray_actor any more"
    trial.temporary_state.ray_actor = "an actor"
    assert ray_patches.actor_of(trial) == "an actor"
    assert "_default_result_or_future" in vars(trial), "forget_last_result: Trial has another name for it"
    trial._default_result_or_future = "a result"
    ray_patches.forget_last_result(trial)
    assert trial.last_result == {"trial_id": trial.trial_id}


def test_every_death_is_an_actors_to_tune_inside_the_block_alone():
    from ray.air.execution._internal.actor_manager import RayActorManager

    original = RayActorManager._actor_task_failed
    named = list(inspect.signature(original).parameters)
    assert named == ["self", "tracked_actor_task", "exception"], "all_deaths_are_actor_errors: called otherwise"
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RayActorManager, "_actor_task_failed", lambda self, task, exception: told.append(exception))
        with ray_patches.all_deaths_are_actor_errors():
            for exception in (ray.exceptions.OutOfMemoryError("low"), ValueError("other")):
                RayActorManager._actor_task_failed(None, None, exception)
    assert [type(each) for each in told] == [ray.exceptions.RayActorError, ValueError]
    assert RayActorManager._actor_task_failed is original


def test_trains_jobs_are_made_with_a_short_farewell_inside_the_block_alone():
    from ray.train.v2.api import data_parallel_trainer

    original = data_parallel_trainer.PlacementGroupCleanerCallback
    with ray_patches.jobs_end_with_their_workers():
        (made,) = (
            each
            for each in data_parallel_trainer.DataParallelTrainer(lambda: None)._create_default_callbacks()
            if isinstance(each, original)
        )
        assert made._stop_timeout == ray_patches.FAREWELL_S
    assert data_parallel_trainer.PlacementGroupCleanerCallback is original
    assert original()._stop_timeout > 10  # what is kept from waiting for


def test_files_of_trials_that_tune_does_not_run_reach_the_folder(cluster, tmp_path):
    storage = ray_patches.trial_storage(str(tmp_path), "tune")
    ray_patches.keep_files(storage, wait=True)  # nothing was written
    trial = Trial("any", stub=True, storage=storage, trial_id="first", trial_dirname_creator=lambda trial: "first")
    trial.init_local_path()
    (Path(trial.local_path) / "said.txt").write_text("something")
    ray_patches.keep_files(storage, wait=True)
    assert (tmp_path / "tune" / "first" / "said.txt").read_text() == "something"
