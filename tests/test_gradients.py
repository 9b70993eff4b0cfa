"""Gradients at the outputs of layers: against the whole graph, labels, keys, and what is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cells import Watch, run, similarities
from helpers.configuration import compose
from helpers.models import CONFIGS, make_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import nsvd_exp as nx
from nsvd_exp.errors import NsvdError
from nsvd_exp.experiment.plan import plan_cell, plan_similarity
from nsvd_exp.experiment.session import Session
from nsvd_exp.methods.statistics import OutputGradients
from nsvd_exp.models.layers import find_linears
from nsvd_exp.pipeline.gradient_sums import GradientAccumulator, WeightedGram
from nsvd_exp.pipeline.gradients import draw, output_gradients
from nsvd_exp.storage.files import DamagedError
from nsvd_exp.storage.gradients import GradientsFolder

Settings = Callable[..., list[str]]
IDS = torch.randint(0, 99, (5, 12), generator=torch.Generator().manual_seed(0))


def found_of(model: nn.Module, ids: Tensor = IDS, **options: Any) -> dict[str, OutputGradients]:
    found: dict[str, OutputGradients] = {}
    output_gradients(model, find_linears(model, []), ids, found.__setitem__, **options)
    return found


def by_hand(model: nn.Module, labels: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """The gradients (tokens, m) of the summed loss, by one graph of the whole model, and the
    inputs (tokens, n)."""
    grads: dict[str, Tensor] = {}
    inputs: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def watch(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs[name] = args[0].detach().clone().reshape(-1, args[0].shape[-1])
            output.register_hook(lambda g: grads.__setitem__(name, g.reshape(-1, g.shape[-1])))

        return watch

    layers = find_linears(model, [])
    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    logits = model(input_ids=IDS).logits[:, :-1]
    cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum").backward()
    for handle in handles:
        handle.remove()
    model.zero_grad()
    return {name: (grads[name].double(), inputs[name].double()) for name in layers}


@pytest.mark.parametrize("name", CONFIGS)
def test_block_by_block_the_gradients_are_those_of_the_whole_graph(name: str) -> None:
    model = make_model(name)
    found, expected = found_of(model, labels="text", batch=2), by_hand(model, IDS[:, 1:])
    assert found.keys() == expected.keys()
    for layer, (g, x) in expected.items():
        known, w = found[layer], g.square().mean(1) / g.square().mean()
        torch.testing.assert_close(
            known.weighted_gram, x.T @ (w[:, None] * x), rtol=1e-4, atol=1e-4
        )
        assert known.tokens == len(g) == IDS.numel()
        torch.testing.assert_close(known.covariance, g.T @ g / len(g), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(known.mean_square, g.square().mean(0), rtol=1e-4, atol=1e-9)
        assert known.size == pytest.approx(float(g.square().mean()), rel=1e-4)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_batch_size_shows_only_as_rounding_and_the_seed_draws_the_labels() -> None:
    model = make_model("llama")
    one, other, again = (found_of(model, batch=batch, seed=3) for batch in (1, 5, "auto"))
    third, text = found_of(model, seed=4), found_of(model, labels="text")
    for layer, known in one.items():
        for same in (other[layer], again[layer]):
            torch.testing.assert_close(known.covariance, same.covariance, rtol=1e-4, atol=1e-7)
            torch.testing.assert_close(
                known.weighted_gram, same.weighted_gram, rtol=1e-4, atol=1e-4
            )
        for different in (third[layer], text[layer]):
            assert not torch.allclose(known.mean_square, different.mean_square, rtol=1e-2)


def test_the_covariance_under_the_models_own_labels_is_the_fisher_information() -> None:
    """At the last layer's output its expectation has a closed form, J (diag(p) - p pᵀ) Jᵀ."""
    model = make_model("llama")
    layer = "model.layers.1.mlp.down_proj"
    ids = IDS[:1, :4]
    many = found_of(model, ids.expand(2000, -1))[layer].covariance  # each row draws its own labels
    kept: list[Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _, __, output: kept.append(output.detach().requires_grad_()) or kept[0]
    )
    logits = model(input_ids=ids).logits[0, :-1]
    handle.remove()
    expected = torch.zeros(32, 32, dtype=torch.float64)
    for position, row in enumerate(logits):
        (J,) = zip(*[torch.autograd.grad(x, kept[0], retain_graph=True) for x in row], strict=True)
        jacobian = torch.stack([j[0, position] for j in J]).double()
        p = row.softmax(-1).double()
        expected += jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian / ids.shape[1]
    assert float((many - expected).norm() / expected.norm()) < 0.1


def test_labels_are_drawn_in_proportion_to_their_probabilities() -> None:
    logits = torch.tensor([0.1, 0.2, 0.0, 0.7]).log().expand(1, 20000, 4)
    chance = torch.rand(1, 20000, generator=torch.Generator().manual_seed(1))
    share = draw(logits, chance).flatten().bincount(minlength=4) / 20000
    torch.testing.assert_close(share, torch.tensor([0.1, 0.2, 0.0, 0.7]), atol=0.02, rtol=0)
    edges = draw(logits[:, :2], torch.tensor([[0.0, 0.9999999]]))
    assert edges.tolist() == [[0, 3]]


def test_the_largest_tokens_count_as_the_next_one_in_the_size_alone() -> None:
    g = torch.ones(2000, 3)
    g[:2] = 1000.0
    accumulator = GradientAccumulator(g)
    accumulator.add(g[:900])
    accumulator.add(g[900:])
    known = accumulator.gradients()
    assert known.size == 1.0
    assert known.tensors.keys() == {"mean_square"}
    assert float(known.mean_square[0]) == pytest.approx((2 * 1e6 + 1998) / 2000)
    broken = GradientAccumulator(g)
    broken.add(g * torch.inf)
    with pytest.raises(NsvdError, match="its gradients are NaN or Inf"):
        broken.gradients()


@pytest.mark.parametrize("batches", [[700], [1, 2, 697], [300, 300, 100], [3] * 233 + [1]])
def test_the_largest_hundredth_of_tokens_weighs_as_the_next_one(batches: list[int]) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(700, 5, generator=draw)
    w = torch.rand(700, generator=draw) ** 8
    w[[13, 14, 699]] = torch.tensor([50.0, 7e3, 2e4])
    sums = WeightedGram(x, tokens=1000)
    for part, weights in zip(x.split(batches), w.split(batches), strict=True):
        sums.add(part, weights)
    clipped = w.clamp(max=float(w.sort(descending=True).values[7])).double()
    expected = x.double().T @ (clipped[:, None] * x.double()) / clipped.mean()
    torch.testing.assert_close(sums.matrix(), expected, rtol=1e-4, atol=1e-3)
    nothing = WeightedGram(x, tokens=700)
    nothing.add(x, 0 * w)
    assert not nothing.matrix().any()


def test_a_model_without_gradients_is_refused_and_integer_embeddings_are_none() -> None:
    class Frozen(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, *args: Any, **named: Any) -> Any:
            with torch.no_grad():
                return self.block(*args, **named)

    model = make_model("llama")
    model.model.layers[1] = Frozen(model.model.layers[1])
    with pytest.raises(NsvdError, match=r"do not say how their output depends .* no gradients"):
        found_of(model)


def test_an_input_that_is_changed_before_its_gradient_is_there_is_refused() -> None:
    class Reusing(nn.Module):
        def __init__(self, block: nn.Module) -> None:
            super().__init__()
            self.block = block

        def forward(self, hidden: Tensor, *args: Any, **named: Any) -> Any:
            output = self.block(hidden, *args, **named)
            with torch.no_grad():
                inputs[0].mul_(2)
            return output

    model, inputs = make_model("llama"), []
    model.model.layers[1] = Reusing(model.model.layers[1])
    linear = model.model.layers[1].block.mlp.down_proj
    linear.register_forward_pre_hook(lambda _, args: inputs.insert(0, args[0].detach()))
    with pytest.raises(NsvdError, match=r"down_proj: its input is changed in place"):
        found_of(model)
    assert found_of(model, tensors={"covariance"})


def test_what_is_kept_comes_back_and_what_is_not_of_it_is_damaged(tmp_path: Path) -> None:
    model = make_model("llama")
    made = found_of(model)
    shapes = {
        layer: {name: tuple(tensor.shape) for name, tensor in g.tensors.items()}
        for layer, g in made.items()
    }
    folder = GradientsFolder(tmp_path / "g", "key")
    assert not folder.open(shapes)
    with folder.being_written():
        for name, gradients in made.items():
            folder.add(name, gradients)
    read = GradientsFolder(tmp_path / "g", "key")
    assert read.open(shapes)
    assert list(read) == list(made)
    for name, gradients in made.items():
        for tensor, values in gradients.tensors.items():
            assert torch.equal(read[name].tensors[tensor], values)
        assert (read[name].size, read[name].tokens) == (gradients.size, gradients.tokens)
    with pytest.raises(DamagedError):
        GradientsFolder(tmp_path / "g", "other").open(shapes)
    wider = {layer: {"mean_square": (len(made[layer].mean_square) + 1,)} for layer in made}
    with pytest.raises(DamagedError):
        GradientsFolder(tmp_path / "g", "key").open(wider)
    # A tensor that nobody asked for does no harm; one that is not there is missed.
    without = {
        layer: {name: shape for name, shape in of_layer.items() if name != "covariance"}
        for layer, of_layer in shapes.items()
    }
    assert GradientsFolder(tmp_path / "g", "key").open(without)
    lean = GradientsFolder(tmp_path / "lean", "key")
    with lean.being_written():
        for name, gradients in made.items():
            lean.add(name, dataclasses.replace(gradients, covariance=None))
    assert lean.open(without)
    assert not lean.open(shapes)
    file = next((tmp_path / "g").glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(DamagedError):
        GradientsFolder(tmp_path / "g", "key").open(shapes)
    with pytest.raises(OSError, match="full"), folder.being_written():
        raise OSError("full")
    assert not (tmp_path / "g").exists()


@pytest.fixture
def arguments(settings: Settings) -> list[str]:
    return [*settings(), "ratio=0.3", "dataset=[c4]", "calibration.gradient_samples=6"]


def test_gradients_key_the_cells_that_read_them_and_no_others(arguments: list[str]) -> None:
    def identity(*more: str) -> dict[str, Any]:
        return plan_cell(compose(*arguments, *more)).file.identity

    plain = identity("method=asvd_i")
    assert plain == identity("method=asvd_i", "calibration.labels=text")
    assert "gradients" not in plain
    for choice in ("method=kfac", "method=weighted_kfac", "method=fwsvd", "allocation=fisher"):
        keyed = identity(choice)
        assert keyed["gradients"] == {"samples": 6, "labels": "model", "version": 1}
        assert identity(choice, "calibration.labels=text") != keyed
        assert identity(choice, "calibration.gradient_samples=5") != keyed
        assert "calibration" in keyed
    # More than there are samples is all of them.
    more = [identity("method=kfac", f"calibration.gradient_samples={n}") for n in (12, 400)]
    assert more[0] == more[1]
    assert "gradients" not in identity("method=dense", "allocation=fisher")
    assert plan_similarity(compose(*arguments, "method=kfac")).gradients is None


@pytest.mark.parametrize(
    "choices",
    [
        ["method=kfac", "method.ridge=0.1", "storage=pivoted", "allocation=fisher"],
        ["method=weighted_kfac", "method.ridge=0.3", "storage=pivoted", "allocation=fisher"],
        ["method=fwsvd"],
        ["method=svd", "allocation=fisher"],
        ["method=nsvd_i", "method.first=nsvd_exp.methods.KFAC", "method.name=nkfac"],
    ],
    ids=lambda choices: " ".join(choices),
)
def test_a_cell_is_the_same_in_memory_kept_and_streamed(
    arguments: list[str], tmp_path: Path, choices: list[str]
) -> None:
    choices = [*choices, "allocation.multiple=2"] if "allocation=fisher" in choices else choices
    places = (["cache.keep=none"], ["cache.keep=bases"], ["cache.keep=bases"], ["memory=streamed"],
              ["memory=streamed", "cache.keep=none"])  # fmt: skip
    numbers, begun = [], []
    for number, more in enumerate(places):
        watch = Watch()
        folders = [f"results_dir={tmp_path}/{number}", f"cache_dir={tmp_path}/c{len(more[0])}"]
        cell = run(*arguments, *choices, *folders, *more, session=Session(watch.load), watch=watch)
        numbers.append(cell["datasets"]["c4"]["perplexity"])
        begun.append(watch.begun["gradients"])
    assert begun == [1, 1, 0, 1, 1]
    assert numbers[1] == numbers[2] == numbers[0]
    assert numbers[3:] == pytest.approx(numbers[:1] * 2, rel=1e-4)
    assert cell["calibration"]["gradients"]["samples"] == 6
    assert cell["achieved_ratio"]["layers"] >= 0.3


def test_cells_share_gradients_and_similarity_makes_none(arguments: list[str]) -> None:
    watch = Watch()
    session = Session(watch.load)
    for choice in ("method=kfac", "method=kfac method.ridge=0.2", "method=kfac allocation=fisher"):
        more = ["allocation.multiple=2"] if "fisher" in choice else []
        run(*arguments, *choice.split(), *more, session=session, watch=watch)
    assert watch.begun["gradients"] == 1
    similarities(*arguments, "measure=similarity", "method=kfac", session=session, watch=watch)
    assert watch.begun["gradients"] == 1


@pytest.mark.parametrize("memory", ["auto", "streamed"])
def test_gradients_with_more_tensors_serve_who_needs_fewer_and_not_the_other_way(
    arguments: list[str], tmp_path: Path, memory: str
) -> None:
    watch = Watch()
    ranks = ["method=asvd_i", "allocation=fisher", "allocation.multiple=2"]

    def perplexity(folder: str, *choice: str, session: Session | None = None) -> float:
        cell = run(
            *arguments,
            *choice,
            f"memory={memory}",
            f"cache_dir={tmp_path}/cache",
            "cache.keep=statistics",
            f"results_dir={tmp_path}/{folder}",
            session=session or Session(watch.load),
            watch=watch,
        )
        return cell["datasets"]["c4"]["perplexity"]

    # In one session, then each in its own: the second reads what the first has left in cache_dir.
    session = Session(watch.load)
    lean = perplexity("a", *ranks, session=session)
    some = perplexity("a", "method=kfac", session=session)
    full = perplexity("a", "method=weighted_kfac", session=session)
    assert watch.begun["gradients"] == 3
    assert perplexity("b", *ranks, session=session) == lean
    assert perplexity("c", *ranks) == lean
    assert perplexity("c", "method=kfac") == some
    assert perplexity("c", "method=weighted_kfac") == full
    assert len({lean, some, full}) == 3
    assert watch.begun["gradients"] == 3


def test_the_library_takes_gradients_with_the_calibration() -> None:
    model = make_model("llama")
    samples = nx.samples(["one two three four five six seven " * 60], _Tokenizer(), 6, 24)
    plain = nx.calibrate(model, samples)
    with pytest.raises(NsvdError, match="KFAC weighs by gradients: it needs a calibration with"):
        nx.compress(model, nx.methods.KFAC(), 0.3, plain)
    with pytest.raises(NsvdError, match="allocation=fisher needs a calibration with gradients"):
        nx.compress(model, nx.methods.SVD(), 0.3, plain, allocation=nx.methods.Fisher(multiple=2))
    known = nx.calibrate(model, samples, gradient_samples=4)
    assert next(iter(known.gradients.values())).tokens == 4 * 24
    for method in (nx.methods.KFAC(), nx.methods.FWSVD(), nx.methods.NSVD(first=nx.methods.KFAC())):
        allocation = nx.methods.Fisher(multiple=2)
        report = nx.compress(model, method, 0.3, known, allocation=allocation)
        assert report.achieved_ratio["layers"] >= 0.3
        report.restore()


def test_the_library_makes_what_the_methods_read_and_no_more() -> None:
    model = make_model("llama")
    samples = nx.samples(["one two three four five six seven " * 60], _Tokenizer(), 6, 24)
    methods = nx.methods.NSVD(first=nx.methods.KFAC()), nx.methods.WeightedKFAC()
    for readers, made in (
        ([], {"mean_square"}),
        (methods[:1], {"mean_square", "covariance"}),
        (methods, {"mean_square", "covariance", "weighted_gram"}),
        (None, {"mean_square", "covariance", "weighted_gram"}),
    ):
        known = nx.calibrate(model, samples, gradient_samples=2, gradients_for=readers)
        assert {frozenset(g.tensors) for g in known.gradients.values()} == {frozenset(made)}
    lean = nx.calibrate(model, samples, gradient_samples=2, gradients_for=[])
    nx.compress(model, nx.methods.SVD(), 0.3, lean, allocation=nx.methods.Fisher(multiple=2))
    with pytest.raises(NsvdError, match="KFAC needs the covariance of the gradients"):
        nx.compress(make_model("llama"), nx.methods.KFAC(), 0.3, lean)


class _Tokenizer:
    """A tokenizer of single characters."""

    is_fast, bos_token_id = False, None
    all_special_tokens: tuple[str, ...] = ()

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [ord(character) % 99 for character in text]}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("calibration.labels=mdel", "unknown calibration.labels 'mdel'. Did you mean model?"),
        ("calibration.gradient_samples=0", "calibration.gradient_samples=0: expected a number > 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(setting: str, message: str) -> None:
    with pytest.raises(NsvdError) as caught:
        compose(setting)
    assert message in str(caught.value)


def test_a_statistic_of_a_layer_has_the_gradients_of_that_layer() -> None:
    model = make_model("llama")
    samples = nx.samples(["one two three four five six seven " * 60], _Tokenizer(), 6, 24)
    known = nx.calibrate(model, samples, gradient_samples=2)
    q, k = (f"model.layers.0.self_attn.{letter}_proj" for letter in "qk")
    assert known.reads[q] == known.reads[k]
    for layer, channels in ((q, 32), (k, 32)):
        own = known.of(layer).gradients
        assert torch.equal(own.covariance, known.gradients[layer].covariance)
        assert own.covariance.shape == (channels, channels)
    assert known.of(q).gradients.size != known.of(k).gradients.size
    moved = known.of(q).to(torch.device("cpu"), torch.float64)
    assert moved.gradients is not None
    assert moved.gradients.covariance.dtype == torch.float64
    assert dataclasses.replace(known, gradients={}).of(q).gradients is None
