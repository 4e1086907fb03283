"""The measured forms of the training step are the same method, and the GPU checks run on a CPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Let the modules of benchmarks/ be imported, and leave PyTorch's threads as they were."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tmp_path):
    from speed import Size

    return Size(quick=True, threads=torch.get_num_threads(), folder=tmp_path)


def small(case):
    """The same case in a size that takes a moment."""
    backbone = replace(case.config.backbone, visual="test_resnet", audio="resnet_slim")
    return replace(case, config=replace(case.config, backbone=backbone, image=replace(case.config.image, side=32)))


def test_both_forms_have_one_loss_and_one_gradient(tiny):
    from speed import training_step

    for case in training_step.cases(tiny)[:3]:
        config = small(case).config
        forms = training_step.Forms(config, config, 0)
        ours, reference = forms.our_loss(), forms.reference_loss()
        if not case.same:
            assert ours != pytest.approx(reference, abs=training_step.SAME), "batch norm sees other batches"
            continue
        assert ours == pytest.approx(reference, abs=training_step.SAME)
        plain = dict(forms.plain.net.named_parameters())
        for name, parameter in forms.state.net.named_parameters():
            if not name.startswith(("class_", "presence", "prototypes")):
                torch.testing.assert_close(parameter.grad, plain[name].grad, rtol=2e-3, atol=2e-5, msg=name)


def test_the_page_tells_what_is_measured(tiny, monkeypatch):
    from speed import training_step

    from flows import presets

    page = (ROOT / "docs/results/speed.md").read_text()
    assert [case.name for case in training_step.cases(tiny) if case.about not in page] == []
    real = presets.load
    monkeypatch.setattr(presets, "load", lambda name: real(name, overrides={"stage_one.mixtures": 2}))
    assert "slim sound trunk, 2 mixtures a pair, all its losses" in training_step.cases(tiny)[-1].about


def test_a_stage_has_ratio_limit_and_profile(tiny):
    from speed import training_step

    stage = training_step.stage_of(small(training_step.cases(tiny)[0]), tiny)
    assert [ratio.target for ratio in stage.ratios] == [2.0, None]
    assert stage.values[0].measure() <= stage.values[0].target == training_step.SAME
    assert stage.ways["ours"]() == 4
    pairs, seconds = stage.ways["limit"]()
    assert pairs > 0 and seconds > 0
    assert "convolution_backward" in stage.notes()


def test_a_form_that_computes_something_else_is_refused(tiny, monkeypatch):
    from speed import training_step

    monkeypatch.setattr(training_step.Forms, "reference_loss", lambda self: 0.0)
    with pytest.raises(SystemExit, match="expected the same"):
        training_step.stage_of(small(training_step.cases(tiny)[0]), tiny)


def run(monkeypatch, *words):
    import gpu_check

    monkeypatch.setattr(sys, "argv", ["gpu_check.py", *words])
    gpu_check.main()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch):
    with pytest.raises(SystemExit, match=r"no GPU: torch .*--allow-cpu"):
        run(monkeypatch)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@torch.backends.mkldnn.flags(enabled=False)  # its bfloat16 is not always a number: see trainer.py
def test_the_checks_run_on_a_cpu(monkeypatch, tmp_path, capsys):
    import gpu_checks
    from speed.training_step import Case

    paper = gpu_checks.Setting.paper
    monkeypatch.setattr(gpu_checks.Setting, "paper", lambda self: small(Case("", "", paper(self))).config)
    page = tmp_path / "gpu.md"
    run(monkeypatch, "parity", "throughput", "feeding", "clustering", "--allow-cpu", "--quick", "--out", str(page))
    shown = capsys.readouterr().out
    assert "| parity bf16: difference of the loss |" in shown and "**no**" not in shown
    assert "no GPU: bfloat16 on the CPU stands in" in page.read_text()
    monkeypatch.setitem(gpu_checks.TOLERANCE, "bf16", (0.0, 0.0, 1.1))
    with pytest.raises(SystemExit, match="3 of 8 do not hold: parity bf16"):
        run(monkeypatch, "parity", "--allow-cpu", "--quick")


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_the_run_of_the_checks_goes_through_on_a_cpu(monkeypatch, capsys):
    run(monkeypatch, "pipeline", "--allow-cpu", "--quick")
    assert "| end to end: stage one trained in | bf16, gpu False | as asked | yes |" in capsys.readouterr().out


def test_an_unknown_check_is_refused(monkeypatch):
    with pytest.raises(SystemExit, match="no check 'speeed'; expected one of parity"):
        run(monkeypatch, "speeed")
