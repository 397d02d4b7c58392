import pytest
from gmlake._adapter import options


def test_what_means_the_same_in_pytorch_holds():
    settings, notes = options.from_torch("garbage_collection_threshold:0.8,per_process_memory_fraction:0.5")
    assert settings == {"garbage_collection_threshold": "0.8", "per_process_memory_fraction": "0.5"}
    assert notes == []


@pytest.mark.parametrize(
    "key", ["max_split_size_mb:128", "expandable_segments:True", "roundup_power2_divisions:[256:1,512:2,>:4]"]
)
def test_what_has_no_effect_is_accepted_and_explained(key):
    settings, notes = options.from_torch(key)
    assert settings == {}
    assert len(notes) == 1 and key.split(":")[0] in notes[0] and "no effect" in notes[0]


def test_what_is_not_about_device_memory_passes_in_silence():
    assert options.from_torch("pinned_use_background_threads:True, backend:native") == ({}, [])


def test_another_backend_is_named():
    _, notes = options.from_torch("backend:cudaMallocAsync")
    assert "cudaMallocAsync" in notes[0]


def test_the_call_wins_over_gmlake_conf_which_wins_over_pytorchs(capsys):
    text = options.text(
        {"slack": 0.01, "background_worker": False},
        {"GMLAKE_CONF": "slack:0.02,limit:4GiB", "PYTORCH_CUDA_ALLOC_CONF": "garbage_collection_threshold:0.8"},
    )
    assert text == "garbage_collection_threshold:0.8,slack:0.02,limit:4GiB,slack:0.01,background_worker:false"
    assert capsys.readouterr().err == ""


def test_the_newer_name_of_pytorchs_variable_wins():
    environment = {
        "PYTORCH_ALLOC_CONF": "garbage_collection_threshold:0.5",
        "PYTORCH_CUDA_ALLOC_CONF": "garbage_collection_threshold:0.8",
    }
    assert options.text({}, environment) == "garbage_collection_threshold:0.5"


def test_a_value_cannot_smuggle_in_another_setting():
    with pytest.raises(ValueError, match="','"):
        options.text({"limit": "1GiB,slack:0.5"}, {})


@pytest.mark.parametrize(
    "name", ["TORCH_NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK", "NCCL_USE_TENSOR_REGISTER_ALLOCATOR_HOOK"]
)
def test_memory_that_moves_is_not_registered_for_good(name, capsys):
    environment = {name: "1", "OTHER": "1"}
    options.switch_registration_off(environment)
    assert environment == {name: "0", "OTHER": "1"}
    assert name in capsys.readouterr().err
    for off in ({}, {name: "0"}, {name: ""}):
        environment = dict(off)
        options.switch_registration_off(environment)
        assert environment == off
    assert capsys.readouterr().err == ""
