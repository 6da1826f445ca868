"""The corruptions, on images made here: each has a property that can be computed or counted."""

import io

import numpy as np
import pytest
from PIL import Image

from training.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def amount(name, severity):
    return CORRUPTIONS[name].amounts[severity - 1]


def grey(level, count=20):
    return np.full((count, 32, 32, 3), level, dtype=np.uint8)


@pytest.fixture(scope="module")
def pictures():
    """Natural in what matters here: soft shapes and fine detail, in colours that go together; every level occurs."""
    generator = np.random.default_rng(0)
    pictures = np.zeros((60, 32, 32, 3))
    for side, height in ((2, 60), (4, 40), (8, 25), (16, 15), (32, 8)):
        light = generator.normal(0, height, (60, side, side, 1)) + generator.normal(0, height / 3, (60, side, side, 3))
        for index, coarse in enumerate(light):
            for channel in range(3):
                smooth = Image.fromarray(coarse[..., channel].astype(np.float32)).resize(
                    (32, 32), Image.Resampling.BICUBIC
                )
                pictures[index, ..., channel] += np.asarray(smooth)
    return np.clip(pictures + 120, 0, 255).astype(np.uint8)


every_corruption = pytest.mark.parametrize("name", CORRUPTIONS)


def test_there_are_ten_in_five_strengths_each_with_its_unit():
    assert len(CORRUPTIONS) == 10
    assert all(
        len(corruption.amounts) == len(SEVERITIES) == 5 and corruption.unit for corruption in CORRUPTIONS.values()
    )


@every_corruption
def test_the_shape_stays_and_the_input_is_not_changed(name, pictures):
    before = pictures.copy()
    corrupted = corrupt(pictures, name, 5, 0)
    assert corrupted.dtype == np.uint8
    assert corrupted.shape == pictures.shape
    assert not np.shares_memory(corrupted, pictures)
    np.testing.assert_array_equal(pictures, before)


@every_corruption
def test_a_harder_strength_changes_the_images_more(name, pictures):
    changes = [np.abs(corrupt(pictures, name, severity, 0) - pictures.astype(float)).mean() for severity in SEVERITIES]
    assert changes[0] > 0.3
    assert changes == sorted(set(changes))
    assert changes[-1] > 1.2 * changes[0]


@every_corruption
def test_the_same_seed_gives_the_same_images(name, pictures):
    np.testing.assert_array_equal(corrupt(pictures, name, 3, 7), corrupt(pictures, name, 3, 7))


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog"])
def test_another_seed_gives_other_images_and_no_two_images_the_same_randomness(name, pictures):
    same = np.repeat(pictures[:1], 2, axis=0)
    corrupted = corrupt(same, name, 3, 0)
    assert (corrupted[0] != corrupted[1]).any()
    assert (corrupted != corrupt(same, name, 3, 1)).any(axis=(1, 2, 3)).all()


@every_corruption
def test_images_behind_the_first_batch_are_corrupted_too(name, pictures):
    many = np.resize(pictures, (1001, 32, 32, 3))  # 500, 500 and 1
    corrupted = corrupt(many, name, 3, 0)
    changes = np.abs(corrupted - many.astype(float)).mean(axis=(1, 2, 3))
    assert changes.min() > 0
    assert changes[500:].mean() == pytest.approx(changes[:500].mean(), rel=0.2)
    np.testing.assert_array_equal(corrupted[:500], corrupt(many[:500], name, 3, 0))


@every_corruption
def test_no_images_are_no_images(name):
    assert corrupt(grey(0, count=0), name, 1, 0).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5])
def test_a_strength_that_is_none_is_rejected(severity):
    with pytest.raises(ValueError, match=f"severity is {severity}; expected 1 to 5"):
        corrupt(grey(0), "fog", severity, 0)


def test_an_unknown_corruption_is_rejected_and_the_known_ones_are_named():
    with pytest.raises(ValueError, match=r"unknown corruption 'rain'; known: gaussian_noise, .*pixelate"):
        corrupt(grey(0), "rain", 1, 0)


@pytest.mark.parametrize("images", [grey(0).astype(np.float32), grey(0)[0], grey(0)[:, :16], grey(0)[..., :1]])
def test_what_is_no_batch_of_images_is_rejected(images):
    with pytest.raises(ValueError, match="expected uint8"):
        corrupt(images, "fog", 1, 0)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_noise_has_the_stated_deviation_and_no_drift(severity):
    noise = corrupt(grey(128, 100), "gaussian_noise", severity, 0) - 128.0
    assert noise.std() == pytest.approx(amount("gaussian_noise", severity), rel=0.01)
    assert abs(noise.mean()) < 0.2


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise"])
def test_noise_on_white_never_comes_out_black(name):
    assert corrupt(grey(255, 100), name, 5, 0).min() > 80


@pytest.mark.parametrize("severity", SEVERITIES)
def test_shot_noise_keeps_the_mean_and_has_poissons_deviation(severity):
    photons = amount("shot_noise", severity)
    for level in (10, 60, 120):
        seen = corrupt(grey(level, 100), "shot_noise", severity, 0).astype(float)
        # Mean and variance of a count are equal; the tolerance is for levels being whole numbers.
        assert seen.mean() == pytest.approx(level, abs=0.3)
        assert seen.var() == pytest.approx(level * 255 / photons, rel=0.06)
    assert not corrupt(grey(0), "shot_noise", severity, 0).any()  # no light, no photons


@pytest.mark.parametrize("severity", SEVERITIES)
def test_impulse_noise_makes_the_stated_share_of_the_values_black_or_white(severity):
    corrupted = corrupt(grey(128, 200), "impulse_noise", severity, 0)
    share = amount("impulse_noise", severity)
    assert (corrupted == 0).mean() == pytest.approx(share / 2, rel=0.05)
    assert (corrupted == 255).mean() == pytest.approx(share / 2, rel=0.05)
    assert (corrupted == 128).mean() == pytest.approx(1 - share, abs=0.001)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_gaussian_blur_spreads_a_point_by_the_stated_deviation(severity):
    point = grey(0, 1)
    point[0, 16, 16] = 255
    blurred = corrupt(point, "gaussian_blur", severity, 0)[0, ..., 0].astype(float)
    deviation = amount("gaussian_blur", severity)
    offsets = np.arange(32) - 16
    exact = np.exp(-((offsets / deviation) ** 2) / 2)
    exact /= exact.sum()
    np.testing.assert_allclose(blurred, 255 * np.outer(exact, exact), atol=0.51)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_motion_blur_spreads_a_point_along_a_line_of_the_stated_length(severity):
    points = grey(0, 200)
    points[:, 16, 16] = 255
    coloured = corrupt(points, "motion_blur", severity, 0)
    assert (coloured == coloured[..., :1]).all()  # the three colours of an image move together
    blurred = coloured[..., 0].astype(float)
    np.testing.assert_allclose(blurred.sum(axis=(1, 2)), 255, rtol=0.07)
    rows, columns = np.indices((32, 32)) - 16
    weights = blurred / blurred.sum(axis=(1, 2), keepdims=True)
    moments = [[(weights * a * b).sum(axis=(1, 2)) for b in (rows, columns)] for a in (rows, columns)]
    across, along = np.linalg.eigvalsh(np.transpose(moments, (2, 0, 1))).T
    # A line of this length has the variance (length - 1)² / 12; neighbouring pixels share its points, hence the rest.
    length = amount("motion_blur", severity) - 1
    assert np.abs(along - length**2 / 12).max() < 0.35 + 0.25 * length
    assert across.max() < 0.3
    # Directions of all kinds: as many lean one way as the other.
    assert 0.35 < (moments[0][1] > 0).mean() < 0.65


@pytest.mark.parametrize("severity", SEVERITIES)
@pytest.mark.parametrize("name", ["gaussian_blur", "motion_blur", "pixelate", "contrast"])
def test_a_image_of_one_colour_stays_as_it_is(name, severity):
    """Edges included: none of them is darkened by what lies outside."""
    one_colour = grey(0)
    one_colour[:] = (200, 90, 30)
    np.testing.assert_array_equal(corrupt(one_colour, name, severity, 0), one_colour)


@pytest.mark.parametrize("name", ["gaussian_blur", "motion_blur", "pixelate"])
def test_an_edge_takes_nothing_from_the_opposite_one(name):
    halves = grey(0)
    halves[:, :, 16:] = 255
    corrupted = corrupt(halves, name, 5, 0)
    assert not corrupted[:, :, 0].any()
    assert (corrupted[:, :, -1] == 255).all()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_keeps_the_mean_of_each_colour_and_the_stated_share_of_the_deviation(severity, pictures):
    lowered = corrupt(pictures, "contrast", severity, 0).astype(float)
    np.testing.assert_allclose(lowered.mean(axis=(1, 2)), pictures.mean(axis=(1, 2)), atol=0.5)
    expected = amount("contrast", severity) * pictures.std(axis=(1, 2))
    np.testing.assert_allclose(lowered.std(axis=(1, 2)), expected, atol=0.3)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_raises_the_strongest_colour_by_the_stated_levels_and_keeps_the_hue(severity):
    levels = amount("brightness", severity)
    colour, black, light = grey(0), grey(0), grey(250)
    colour[:] = (100, 50, 0)
    raised = (100 + levels) / 100
    np.testing.assert_array_equal(
        corrupt(colour, "brightness", severity, 0)[0, 0, 0], np.rint([100 * raised, 50 * raised, 0])
    )
    assert (corrupt(black, "brightness", severity, 0) == levels).all()
    assert (corrupt(light, "brightness", severity, 0) == 255).all()


def test_brightness_moves_the_mean_up_with_every_strength(pictures):
    means = [pictures.mean(), *(corrupt(pictures, "brightness", severity, 0).mean() for severity in SEVERITIES)]
    assert means == sorted(set(means))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_draws_every_pixel_towards_the_same_light_grey_by_about_the_stated_share(severity):
    density = amount("fog", severity)
    black, fogs_own = corrupt(grey(0, 200), "fog", severity, 0), corrupt(grey(230, 200), "fog", severity, 0)
    assert (fogs_own == 230).all()
    thickness = black / 230
    assert thickness.mean() == pytest.approx(density, rel=0.05)
    assert thickness.min() == pytest.approx(density / 2, abs=0.005)
    assert thickness.max() == pytest.approx(density * 3 / 2, abs=0.005)
    assert (black[..., 0] == black[..., 2]).all()


def test_fog_is_a_cloud_and_no_noise():
    black = corrupt(grey(0, 200), "fog", 5, 0)[..., 0].astype(float)
    assert np.abs(np.diff(black, axis=2)).mean() < 0.25 * black.std()


@pytest.mark.parametrize("severity", SEVERITIES)
def test_jpeg_compression_is_what_pillow_writes_and_reads(severity, pictures):
    corrupted = corrupt(pictures[:5], "jpeg_compression", severity, 0)
    for picture, got in zip(pictures, corrupted, strict=False):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=amount("jpeg_compression", severity))  # Pillow's own 4:2:0
        np.testing.assert_array_equal(got, np.asarray(Image.open(file)))


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_leaves_the_stated_number_of_blocks_of_one_colour(severity, pictures):
    blocks = amount("pixelate", severity)
    corrupted = corrupt(pictures, "pixelate", severity, 0)
    for axis in (1, 2):
        steps = (np.diff(corrupted.astype(int), axis=axis) != 0).any(axis=(0, 3 - axis, 3))
        assert steps.sum() == blocks - 1


def test_a_block_of_pixelate_has_the_mean_of_its_pixels(pictures):
    assert amount("pixelate", 5) == 16  # blocks of 2×2 pixels
    means = pictures.reshape(-1, 16, 2, 16, 2, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(corrupt(pictures, "pixelate", 5, 0)[:, ::2, ::2], np.rint(means))
