"""Modes of zero-shot video on tiny models: equal to diffusers' pipelines per frame, whatever the chunks."""

import numpy as np
import pytest
import torch

from kinetograph.neural import sampling
from kinetograph.neural.pictures import families, folder
from kinetograph.neural.zeroshot import controlling, editing, loop, smoothing
from kinetograph.neural.zeroshot.attention import ANCHORS, crossing
from kinetograph.neural.zeroshot.controlling import Guide

SIDE, STEPS, FRAMES = 64, 4, 3
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(picture_model):
    """A function: a loaded tiny model of a kind."""
    loaded = {}

    def of(kind, family="sd"):
        if kind not in loaded:
            loaded[kind] = folder.load(picture_model(kind), family, "float32", CPU)
        return loaded[kind]

    return of


@pytest.fixture(scope="module")
def nets(picture_model):
    from diffusers import ControlNetModel

    return [
        ControlNetModel.from_pretrained(picture_model(kind), low_cpu_mem_usage=False).eval()
        for kind in ("controlnet", "controlnet-2")
    ]


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def told(pictures, prompt="a cat", negative="a dog"):
    return (pictures.words([text], SIDE, SIDE, negative=text == negative) for text in (prompt, negative))


def sampled(pictures, groups, x, levels, predict=None, chunk=8, cross=None):
    denoise = loop.frames_denoiser(
        predict or pictures.predict, pictures.prediction, groups, chunk=chunk, crossing=cross
    )
    return sampling.sample(denoise, x, levels, "ddim")


def theirs(kind, picture_model, **parts):
    """A pipeline of diffusers on the same weights."""
    import diffusers

    with folder.quiet():
        pipe = getattr(diffusers, kind).from_pretrained(picture_model, local_files_only=True, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- instructions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("guidance", "image_guidance"), [(7.5, 1.5), (5.0, 1.0), (2.0, 2.0)])
def test_an_edit_without_cross_frame_attention_is_diffusers_instruct_pix2pix_of_each_frame(
    pictures, picture_model, guidance, image_guidance
):
    mine = pictures("pix2pix")
    frames, noise = drawn(FRAMES, 3, SIDE, SIDE).clamp(-1, 1), drawn(1, 4, 8, 8, seed=1)
    pipe = theirs("StableDiffusionInstructPix2PixPipeline", picture_model("pix2pix"), safety_checker=None)
    with torch.no_grad():
        wanted = [
            pipe(
                "make it red", frame[None], STEPS, guidance, image_guidance, "blue", latents=noise, output_type="latent"
            ).images
            for frame in (frames + 1) / 2
        ]
    positive, negative = told(mine, "make it red", "blue")
    groups = editing.instructed(positive, negative, mine.encode(frames, plain=True), guidance, image_guidance)
    levels = mine.levels(STEPS, clean=False)
    x = sampling.begin(noise[:, :, None].expand(-1, -1, FRAMES, -1, -1), levels[0])
    found = sampled(mine, groups, x, levels)[0].transpose(0, 1)
    torch.testing.assert_close(found, torch.cat(wanted), atol=1e-4, rtol=1e-4)


def test_groups_of_an_edit_that_do_not_count_are_not_asked(pictures):
    mine, asked = pictures("pix2pix"), []

    def counting(x, level, told, frames):
        asked.append(len(x))
        return mine.predict(x, level, told, frames)

    positive, negative = told(mine)
    source = mine.encode(drawn(FRAMES, 3, SIDE, SIDE).clamp(-1, 1), plain=True)
    levels = mine.levels(2)
    for guidance, image_guidance, rows in ((7.5, 1.5, 9), (7.5, 1.0, 6), (1.5, 1.5, 6), (1.0, 1.0, 3), (1.0, 0.5, 9)):
        groups = editing.instructed(positive, negative, source, guidance, image_guidance)
        asked.clear()
        sampled(mine, groups, drawn(1, 4, FRAMES, 8, 8), levels, predict=counting)
        assert set(asked) == {rows}


def test_an_edit_does_not_depend_on_the_chunks(pictures):
    mine = pictures("pix2pix")
    positive, negative = told(mine)
    source = mine.encode(drawn(5, 3, SIDE, SIDE).clamp(-1, 1), plain=True)
    groups, levels = editing.instructed(positive, negative, source, 7.5, 1.5), mine.levels(STEPS)
    with crossing(mine.network, anchors=ANCHORS["first"]) as cross:
        found = [sampled(mine, groups, drawn(1, 4, 5, 8, 8), levels, chunk=c, cross=cross) for c in (1, 2, 5)]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, atol=1e-4, rtol=1e-4)
    alone = sampled(mine, groups, drawn(1, 4, 5, 8, 8), levels)
    assert not torch.allclose(found[0][:, :, 1:], alone[:, :, 1:], atol=1e-3)
    torch.testing.assert_close(found[0][:, :, 0], alone[:, :, 0], atol=1e-4, rtol=1e-4)  # the anchor looks at itself


# --- controls ---------------------------------------------------------------------------------------------------------


def guides(nets, hints, **more):
    return [Guide(net, hint, scale, **more) for net, hint, scale in zip(nets, hints, (0.8, 0.5))]


def controlled(pictures, some, levels):
    return controlling.controlled(
        pictures.predict, some, levels, pictures.time, lambda words: families.asked(pictures.family, words)
    )


@pytest.mark.parametrize("count", [1, 2])
def test_control_without_cross_frame_attention_is_diffusers_controlnet_of_each_frame(
    pictures, picture_model, nets, count
):
    from diffusers import MultiControlNetModel

    mine, noise = pictures("sd"), drawn(1, 4, 8, 8, seed=1)
    hints = [drawn(FRAMES, 3, SIDE, SIDE, seed=k).sigmoid() for k in range(count)]
    some = guides(nets, hints)
    pipe = theirs(
        "StableDiffusionControlNetPipeline",
        picture_model("sd"),
        controlnet=MultiControlNetModel(nets[:count]),
        safety_checker=None,
    )
    with torch.no_grad():
        wanted = [
            pipe(
                "a cat",
                [hint[k][None] for hint in hints],
                num_inference_steps=STEPS,
                guidance_scale=6.0,
                negative_prompt="a dog",
                latents=noise,
                output_type="latent",
                controlnet_conditioning_scale=[guide.scale for guide in some],
                control_guidance_start=[0.0, 0.3][:count],
                control_guidance_end=[0.8, 1.0][:count],
            ).images
            for k in range(FRAMES)
        ]
    bounds = [(0.0, 0.8), (0.3, 1.0)]
    some = [Guide(g.network, g.hints, g.scale, *bound) for g, bound in zip(some, bounds)]
    levels = mine.levels(STEPS, clean=False)
    x = sampling.begin(noise[:, :, None].expand(-1, -1, FRAMES, -1, -1), levels[0])
    groups = loop.guided(*told(mine), 6.0)
    found = sampled(mine, groups, x, levels, controlled(mine, some, levels), chunk=2)[0].transpose(0, 1)
    torch.testing.assert_close(found, torch.cat(wanted), atol=1e-4, rtol=1e-4)


def test_control_of_a_larger_family_is_diffusers_own_too(pictures, picture_model):
    from diffusers import ControlNetModel

    mine, noise, hint = pictures("sdxl", "sdxl"), drawn(1, 4, 8, 8, seed=1), drawn(1, 3, SIDE, SIDE).sigmoid()
    net = ControlNetModel.from_pretrained(picture_model("controlnet-xl"), low_cpu_mem_usage=False).eval()
    parts = {"controlnet": net, "add_watermarker": False}
    pipe = theirs("StableDiffusionXLControlNetPipeline", picture_model("sdxl"), **parts)
    said = {"guidance_scale": 6.0, "negative_prompt": "a dog", "controlnet_conditioning_scale": 0.8}
    sizes = {"height": SIDE, "width": SIDE, "original_size": (SIDE, SIDE), "target_size": (SIDE, SIDE)}
    with torch.no_grad():
        wanted = pipe(
            "a cat", image=hint, num_inference_steps=STEPS, latents=noise, output_type="latent", **said, **sizes
        ).images
    levels = mine.levels(STEPS, clean=False)
    x, groups = sampling.begin(noise[:, :, None], levels[0]), loop.guided(*told(mine), 6.0)
    found = sampled(mine, groups, x, levels, controlled(mine, [Guide(net, hint, 0.8)], levels))[:, :, 0]
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_cross_frame_attention_works_inside_controlnets_whatever_the_chunks(pictures, nets):
    mine, levels = pictures("sd"), pictures("sd").levels(STEPS)
    some = guides(nets, [drawn(5, 3, SIDE, SIDE, seed=k).sigmoid() for k in range(2)])
    x, groups = drawn(1, 4, 5, 8, 8), loop.guided(*told(mine), 6.0)
    predict = controlled(mine, some, levels)
    with crossing(mine.network, *nets, anchors=ANCHORS["first"]) as cross:
        whole, *parts = (sampled(mine, groups, x, levels, predict, chunk, cross) for chunk in (5, 1, 2, 3))
    for part in parts:
        torch.testing.assert_close(part, whole, atol=1e-4, rtol=1e-4)
    with crossing(mine.network, anchors=ANCHORS["first"]) as cross:
        outside = sampled(mine, groups, x, levels, predict, 5, cross)
    assert (outside - whole)[:, :, 1:].abs().max() > 1e-3  # it matters
    torch.testing.assert_close(outside[:, :, 0], whole[:, :, 0], atol=1e-4, rtol=1e-4)


def test_a_control_of_strength_zero_changes_nothing(pictures, nets):
    mine, levels = pictures("sd"), pictures("sd").levels(STEPS)
    hints, x, groups = drawn(FRAMES, 3, SIDE, SIDE).sigmoid(), drawn(1, 4, FRAMES, 8, 8), loop.guided(*told(mine), 6.0)
    plain = sampled(mine, groups, x, levels)
    off = sampled(mine, groups, x, levels, controlled(mine, [Guide(nets[0], hints, 0.0)], levels))
    on = sampled(mine, groups, x, levels, controlled(mine, [Guide(nets[0], hints, 1.0)], levels))
    assert (plain == off).all()
    assert not torch.allclose(plain, on, atol=1e-3)


def test_a_level_between_two_steps_belongs_to_the_former():
    levels = sampling.schedule("flow", 4)
    assert [controlling.step_of(level, levels) for level in levels[:-1]] == [0, 1, 2, 3]
    assert controlling.step_of(sampling.flow_level(0.6), levels) == 1
    assert controlling.step_of(sampling.flow_level(0.1), levels) == 3


# --- video to video, pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.3, 0.8, 1.0])
def test_video_to_video_is_diffusers_image_to_image_of_each_frame(pictures, picture_model, strength):
    mine, steps = pictures("sd"), 5
    source = drawn(FRAMES, 4, 8, 8)
    pipe = theirs("StableDiffusionImg2ImgPipeline", picture_model("sd"), safety_checker=None)
    with torch.no_grad():
        wanted = [
            pipe(
                "a cat",
                frame[None],
                strength,
                steps,
                guidance_scale=6.0,
                negative_prompt="a dog",
                generator=torch.Generator().manual_seed(7),
                output_type="latent",
            ).images
            for frame in source
        ]
    noise = drawn(1, 4, 8, 8, seed=7)[:, :, None]
    x, levels = editing.begun(source, noise, mine.levels(steps, clean=False), strength)
    found = sampled(mine, loop.guided(*told(mine), 6.0), x, levels)[0].transpose(0, 1)
    torch.testing.assert_close(found, torch.cat(wanted), atol=1e-4, rtol=1e-4)


def test_of_strength_nothing_is_left_to_do(pictures):
    source = drawn(FRAMES, 4, 8, 8)
    x, levels = editing.begun(source, drawn(1, 4, 1, 8, 8), pictures("sd").levels(4), 0.0)
    assert len(levels) == 1
    assert (x[0].transpose(0, 1) == source).all()


def test_what_is_hardly_edited_is_as_the_source_has_it_and_what_is_edited_stays():
    rng = np.random.default_rng(2)
    source = rng.integers(60, 200, (3, 32, 32, 3), dtype=np.uint8)
    edited = (source + rng.integers(-8, 9, source.shape)).astype(np.uint8)
    edited[:, 8:20, 10:22] = 255 - 40 * (source[:, 8:20, 10:22] > 128)
    made = editing.kept(edited, source, 0.125)
    assert np.array_equal(made[:, :, :8], source[:, :, :8])
    assert np.array_equal(made[:, 10:18, 12:20], edited[:, 10:18, 12:20])
    assert np.array_equal(editing.kept(source, source, 1.0), source)
    between = editing.kept(source + np.uint8(24), source, 0.125)  # three quarters of it: half of both
    assert np.abs(between.astype(int) - source - 12).max() <= 1


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp-2m", "unipc", "heun"])
def test_a_known_first_frame_comes_out_as_it_went_in_and_the_others_look_at_it(pictures, sampler):
    mine, levels = pictures("sd"), pictures("sd").levels(STEPS)
    picture, other = drawn(1, 4, 8, 8, seed=3), drawn(1, 4, 8, 8, seed=4)
    x = drawn(1, 4, FRAMES, 8, 8)
    with crossing(mine.network, anchors=ANCHORS["first"]) as cross:
        plain = loop.frames_denoiser(
            mine.predict, mine.prediction, loop.guided(*told(mine), 6.0), crossing=cross, chunk=2
        )
        one, two = (sampling.sample(editing.anchored(plain, p), x, levels, sampler) for p in (picture, other))
    torch.testing.assert_close(one[:, :, 0], picture, atol=1e-5, rtol=1e-5)
    assert (one - two)[:, :, 1:].abs().max() > 1e-3


# --- smoothing in the loop --------------------------------------------------------------------------------------------


def smoothed(pictures, strength, source="both", chunk=8, words=(), given=None, until=0.6):
    levels, warp = pictures.levels(STEPS), smoothing.still(FRAMES)
    plan = smoothing.Smoothing(
        strength=strength, warp=warp, source=source, words=words, given=given, until=until, grow=0
    )
    x, groups = drawn(1, 4, FRAMES, 8, 8), loop.guided(*told(pictures), 6.0)
    with crossing(pictures.network, anchors=ANCHORS["first"]) as cross, smoothing.watching(pictures.network) as seen:
        smoother = smoothing.Smoother(plan, levels, seen)
        plain = loop.frames_denoiser(
            smoother.predict(pictures.predict), pictures.prediction, groups, crossing=cross, chunk=chunk
        )
        found = sampling.sample(smoother.denoise(plain), x, levels, "dpmpp-2m")
    return found, smoother


def test_smoothing_of_strength_zero_changes_nothing(pictures):
    mine = pictures("sd")
    with crossing(mine.network, anchors=ANCHORS["first"]) as cross:
        plain = loop.frames_denoiser(mine.predict, mine.prediction, loop.guided(*told(mine), 6.0), crossing=cross)
        wanted = sampling.sample(plain, drawn(1, 4, FRAMES, 8, 8), mine.levels(STEPS), "dpmpp-2m")
    torch.testing.assert_close(smoothed(mine, 0.0)[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("source", ["attention", "flow", "both"])
def test_smoothing_in_the_loop_does_not_depend_on_the_chunks(pictures, source):
    found = [smoothed(pictures("sd"), 0.6, source, chunk, words=(3,))[0] for chunk in (3, 1, 2)]
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, atol=2e-4, rtol=2e-4)


def test_smoothing_draws_the_background_alike_and_leaves_the_foreground_its_own(pictures):
    mask = torch.zeros(FRAMES, 1, 8, 8)
    mask[:, :, 2:6, 2:6] = 1
    found, _ = smoothed(pictures("sd"), 1.0, given=mask, until=1.0)
    outside = (found[0] - found[0][:, :1])[:, :, mask[0, 0] == 0]
    inside = (found[0] - found[0][:, :1])[:, 1:, mask[0, 0] == 1]
    assert outside.abs().max() < 1e-5
    assert inside.abs().max() > 1e-3


def test_the_masks_of_a_watched_network_follow_the_words(pictures):
    one, other = (smoothed(pictures("sd"), 0.6, "attention", words=(word,))[1].masks for word in (1, 9))
    assert one.shape == (FRAMES, 1, 8, 8)
    assert not torch.equal(one, other)


# --- how a scene moves ------------------------------------------------------------------------------------------------


def test_a_scene_is_warped_as_motion_moves_pictures():
    from kinetograph.neural.zeroshot import motion
    from kinetograph.neural.zeroshot.noise import Noise

    smooth = torch.nn.functional.avg_pool2d(drawn(1, 4, 36, 36), 5, 1)[0]  # (4, 32, 32)
    field = torch.stack([torch.full((32, 32), 0.05), torch.linspace(-0.03, 0.03, 32).expand(32, 32)])
    for pose, flow in (
        (motion.Pose(0.1, -0.05), None),
        (motion.Pose(zoom=1.2, rotation=10), None),
        (motion.Pose(shear=0.2, x=0.03), None),
        (motion.Pose(0.02), field),
    ):
        warp = smoothing.moving([motion.STILL, pose], [None, flow], 32, 32)
        _, wanted = motion.moved(torch.randn(4, 32, 32), smooth, pose, flow, Noise(0, (4, 32, 32)), 1)
        found, shown = warp(smooth[None])[1], warp(torch.ones(1, 1, 32, 32))[1, 0] > 0.999
        assert shown.float().mean() > 0.6
        assert (found - wanted)[:, shown].abs().mean() < 0.15 * smooth.abs().mean()
        assert torch.allclose(warp(smooth[None])[0], smooth, atol=1e-4)


def test_a_scene_is_followed_by_optical_flow():
    origins = np.stack(np.meshgrid((np.arange(8) + 0.5) / 8 - 0.25, (np.arange(8) + 0.5) / 8), axis=-1)[None]
    seen = np.ones((1, 8, 8), bool)
    seen[:, :, :2] = False
    x = drawn(1, 4, 8, 8)
    moved = smoothing.placed(torch.from_numpy(origins).float(), torch.from_numpy(seen))(x)
    torch.testing.assert_close(moved[:, :, :, 2:], x[:, :, :, :-2], atol=1e-5, rtol=1e-5)
    assert not moved[:, :, :, :2].any()
