"""Models with a training step of their own: the same class around rewritten parts."""

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import kerasbn
from tests.helpers import assert_same_function, names, randomize

pytestmark = pytest.mark.tensorflow  # these training steps are TensorFlow's
X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
CLASSES = np.arange(32) % 3


def network(name, *sizes, width=6, head=4):
    hidden = [L.Dense(size, activation="relu", name=f"d{index}") for index, size in enumerate(sizes)]
    return randomize(
        keras.Sequential([keras.Input((width,), name="in"), *hidden, L.Dense(head, name="out")], name=name)
    )


def gradient_step(loss_of, weights, optimizer):
    """A step of training, written with TensorFlow as in the guides of keras.io."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = loss_of()
    gradients = tape.gradient(loss, weights)
    optimizer.apply_gradients(zip(gradients, weights, strict=True))
    return loss


class VAE(keras.Model):
    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder
        self.loss_tracker = keras.metrics.Mean(name="loss")
        self.seed_generator = keras.random.SeedGenerator(7)

    @property
    def metrics(self):
        return [self.loss_tracker]

    def call(self, inputs):
        return self.decoder(self.encoder(inputs))

    def train_step(self, data):
        def loss_of():
            code = self.encoder(data, training=True)
            code += 0.1 * keras.random.normal(ops.shape(code), seed=self.seed_generator)
            return ops.mean(ops.square(data - self.decoder(code, training=True)))

        loss = gradient_step(loss_of, self.trainable_weights, self.optimizer)
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}


class GAN(keras.Model):
    """No call, two optimizers, parts in a dict."""

    def __init__(self, discriminator, generator):
        super().__init__()
        self.nets = {"d": discriminator, "g": generator}

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer, self.loss_fn = d_optimizer, g_optimizer, loss_fn

    def train_step(self, data):
        generator, discriminator = self.nets["g"], self.nets["d"]
        noise = data[:, :3]

        def of_discriminator():
            real, fake = discriminator(data, training=True), discriminator(generator(noise, training=True))
            return self.loss_fn(ops.ones_like(real), real) + self.loss_fn(ops.zeros_like(fake), fake)

        def of_generator():
            fake = discriminator(generator(noise, training=True))
            return self.loss_fn(ops.ones_like(fake), fake)

        d_loss = gradient_step(of_discriminator, discriminator.trainable_weights, self.d_optimizer)
        g_loss = gradient_step(of_generator, generator.trainable_weights, self.g_optimizer)
        return {"d_loss": d_loss, "g_loss": g_loss}


class Distiller(keras.Model):
    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

    def call(self, inputs):
        return self.student(inputs) * self.scale

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(self.teacher(x, training=False) - y_pred))


def vae():
    model = VAE(network("encoder", 8, head=2), network("decoder", 8, width=2, head=6), name="vae")
    model.compile(keras.optimizers.Adam(1e-2))
    return model


def gan():
    model = GAN(network("discriminator", 8, head=1), network("generator", 8, width=3, head=6))
    losses = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), keras.optimizers.SGD(1e-2, momentum=0.9), losses)
    return model


def distiller():
    teacher = network("teacher", 16)
    teacher.trainable = False
    model = Distiller(network("student", 8), teacher)
    model.compile(keras.optimizers.SGD(1e-2, momentum=0.9))
    model(X)
    return model


class Contrastive(keras.Model):
    """SimCLR (Chen et al., 2020) as keras.io writes it: an augmenter, three networks, two optimizers."""

    def __init__(self):
        super().__init__()
        self.augmenter = keras.Sequential([keras.Input((6,)), L.GaussianNoise(0.1, seed=1)], name="augmenter")
        self.encoder = network("encoder", 8)
        self.projection_head = network("projection_head", 8, width=4, head=5)
        self.linear_probe = keras.Sequential([keras.Input((4,)), L.Dense(3, name="probe")], name="linear_probe")

    def compile(self, contrastive_optimizer, probe_optimizer):
        super().compile()
        self.contrastive_optimizer, self.probe_optimizer = contrastive_optimizer, probe_optimizer
        self.contrastive_loss = keras.metrics.Mean(name="c_loss")
        self.probe_accuracy = keras.metrics.SparseCategoricalAccuracy(name="p_acc")

    @property
    def metrics(self):
        return [self.contrastive_loss, self.probe_accuracy]

    def projected(self, inputs):
        code = self.encoder(self.augmenter(inputs, training=True), training=True)
        return ops.normalize(self.projection_head(code, training=True), axis=1)

    def train_step(self, data):
        inputs, classes = data

        def contrastive():
            similar = ops.matmul(self.projected(inputs), ops.transpose(self.projected(inputs))) / 0.1
            same = ops.arange(ops.shape(inputs)[0])
            return ops.mean(keras.losses.sparse_categorical_crossentropy(same, similar, from_logits=True))

        def probed():
            logits = self.linear_probe(self.encoder(inputs, training=False), training=True)
            self.probe_accuracy.update_state(classes, logits)
            return ops.mean(keras.losses.sparse_categorical_crossentropy(classes, logits, from_logits=True))

        learned = self.encoder.trainable_weights + self.projection_head.trainable_weights
        self.contrastive_loss.update_state(gradient_step(contrastive, learned, self.contrastive_optimizer))
        gradient_step(probed, self.linear_probe.trainable_weights, self.probe_optimizer)
        return {metric.name: metric.result() for metric in self.metrics}


def contrastive():
    model = Contrastive()
    model.compile(keras.optimizers.Adam(1e-2), keras.optimizers.Adam(1e-2))
    return model


CASES = {
    "contrastive": (
        contrastive,
        lambda model: (model.encoder, model.projection_head),
        ["encoder/d0", "projection_head/d0"],
    ),
    "vae": (vae, lambda model: (model.encoder, model.decoder), ["encoder/d0", "decoder/d0"]),
    "gan": (gan, lambda model: (model.nets["d"], model.nets["g"]), ["nets/d/d0", "nets/g/d0"]),
    "distiller": (distiller, lambda model: (model.student,), ["student/d0"]),
}


def fit(model, **arguments):
    """Train by the model's own step."""
    targets = {"y": CLASSES} if isinstance(model, Contrastive) else {}
    return model.fit(X, **targets, batch_size=8, verbose=0, **arguments)


def weights(model):
    return [variable.numpy() for variable in model.variables]


@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
@pytest.mark.parametrize("case", CASES)
def test_rewritten(case, trained):
    make, parts, places = CASES[case]
    source = make()
    if trained:
        fit(source)
    before = weights(source)
    plan = kerasbn.plan(source)
    assert [edit.site.partition("#")[0] for edit in plan.edits if edit.kind == "insert"] == places
    result = plan.apply()
    assert type(result) is type(source)
    assert not {id(each) for each in source.variables} & {id(each) for each in result.variables}
    for old, new in zip(parts(source), parts(result), strict=True):
        assert names(new) == "d0 d0_bn d0_activation out"
        assert new.name == old.name
        assert new.trainable == old.trainable
        assert_same_function(old, new)
    frozen = [part for part in result._flatten_layers() if isinstance(part, keras.Model) and not part.trainable]
    assert [names(part) for part in frozen] == (["d0 out"] if case == "distiller" else [])
    kept = [weights(part) for part in frozen]
    fitted = fit(result, epochs=2)
    assert all(np.all(np.isfinite(values)) for values in fitted.history.values())
    for one, other in zip([before, *kept], [weights(source), *map(weights, frozen)], strict=True):
        assert all(map(np.array_equal, one, other))


@pytest.mark.parametrize("case", CASES)
def test_what_changes_nothing_trains_on_as_the_source(case):
    source = CASES[case][0]()
    fit(source)
    result = kerasbn.rewrite(source, position="none", dropout="none")
    for model in (source, result):
        fit(model, epochs=2, shuffle=False)
    for old, new in zip(CASES[case][1](source), CASES[case][1](result), strict=True):
        assert_same_function(old, new)


def test_rules_and_folding():
    result = kerasbn.rewrite(vae(), rules=[("encoder/*", "skip")])
    assert names(result.encoder) == "d0 out"
    assert names(result.decoder) == "d0 d0_bn d0_activation out"
    randomize(result.decoder)
    folded = kerasbn.fold(result)
    assert type(folded) is VAE
    assert names(folded.decoder) == "d0 d0_activation out"
    assert_same_function(result.decoder, folded.decoder, tolerance=1e-4)
    np.testing.assert_allclose(folded(X), result(X), rtol=1e-4, atol=1e-5)


def test_parts_by_name():
    plan = kerasbn.plan(vae(), parts=["decoder"])
    result = plan.apply()
    assert names(result.encoder) == "d0 out"
    assert names(result.decoder) == "d0 d0_bn d0_activation out"
    assert {skip.site: skip.reason for skip in plan.skips}["encoder/d0#0"] is kerasbn.Reason.OTHER_PART
    with pytest.raises(kerasbn.OptionError, match="Its parts are encoder, decoder"):
        kerasbn.plan(vae(), parts=["decode"])
    with pytest.raises(kerasbn.OptionError, match="leave the option out"):
        kerasbn.plan(network("plain", 8), parts=["decoder"])
    with pytest.raises(kerasbn.OptionError, match="names of attributes"):
        kerasbn.plan(vae(), parts="decoder")


def test_a_part_that_stands_in_another_one_stays_one():
    class Held(VAE):
        def __init__(self, encoder, decoder):
            super().__init__(encoder, decoder)
            self.both = keras.Sequential([keras.Input((6,)), encoder, decoder], name="both")

    source = Held(network("encoder", 8, head=2), network("decoder", 8, width=2, head=6))
    result = kerasbn.rewrite(source)
    assert result.both.layers[0] is result.encoder
    assert result.both.layers[1] is result.decoder
    assert names(result.encoder) == "d0 d0_bn d0_activation out"
    assert_same_function(source.both, result.both)


def test_what_the_class_holds_besides():
    source = vae()
    source.extra = L.Dense(3, name="extra")
    source.extra.build((None, 6))
    source.settings = {"beta": 4.0, "names": ["a", "b"]}
    plan = kerasbn.plan(source)
    assert "Carried over as they are: extra." in plan.notes[0]
    result = plan.apply()
    assert result.settings == {"beta": 4.0, "names": ["a", "b"]}
    assert result.extra is not source.extra
    np.testing.assert_array_equal(result.extra.kernel, source.extra.kernel)
    assert result.loss_tracker is not source.loss_tracker


class Block(L.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.outer = L.Dense(8, activation="relu", name="inner"), L.Dense(units, name="outer")

    def call(self, inputs):
        return self.outer(self.inner(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.outer.units}


class Written(keras.Model):
    """A network written as a class."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block, self.head = Block(6, name="block"), L.Dense(2, name="head")

    def call(self, inputs):
        return self.head(keras.ops.relu(self.block(inputs)))


class Samples(Block):
    def sample(self, inputs):
        return self(inputs)


class Looks(Block):
    def call(self, inputs):
        return super().call(-inputs if float(keras.ops.sum(inputs)) > 0 else inputs)


def test_parts_of_classes_of_ones_own():
    source = VAE(Written(name="encoder"), Block(6, name="decoder"))
    source.compile(keras.optimizers.Adam(1e-2))
    source(X)
    source.fit(X, batch_size=8, verbose=0)
    plan = kerasbn.plan(source)
    inserted = ["decoder/inner#0", "encoder/block/inner#0", "encoder/block/outer#0"]
    assert sorted(edit.site for edit in plan.edits if edit.kind == "insert") == inserted
    result = plan.apply()
    assert_same_function(source.encoder, result.encoder, X)
    np.testing.assert_allclose(result(X), source(X), rtol=1e-4, atol=1e-6)
    assert np.isfinite(result.fit(X, batch_size=8, verbose=0).history["loss"][-1])
    folded = kerasbn.fold(result)
    assert not [layer for layer in folded._flatten_layers() if isinstance(layer, L.BatchNormalization)]
    np.testing.assert_allclose(folded(X), result(X), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [Samples, Looks])
def test_parts_that_are_more_than_what_they_do_when_called(kind):
    source = VAE(network("encoder", 8, head=2), kind(6, name="decoder"))
    source.compile(keras.optimizers.Adam(1e-2), run_eagerly=True)
    source(X)
    source.fit(X, batch_size=8, verbose=0)
    plan = kerasbn.plan(source)
    assert "Carried over as they are: decoder." in plan.notes[0]
    result = plan.apply()
    assert type(result.decoder) is kind
    assert names(result.encoder) == "d0 d0_bn d0_activation out"
    np.testing.assert_allclose(result(X), source(X), rtol=1e-4, atol=1e-6)


def test_a_block_that_stands_in_a_part_as_well():
    block = Block(6, name="block")
    source = VAE(
        keras.Sequential([keras.Input((6,)), block, L.ReLU(), L.Dense(2)], name="encoder"), network("d", width=2)
    )
    source.block = block
    result = kerasbn.rewrite(source)
    assert result.block is result.encoder.get_layer("block")
    assert_same_function(source.encoder, result.encoder, X)


@pytest.mark.parametrize("options", [{"data": X}, {"normalize_inputs": True}], ids=["data", "inputs"])
def test_what_needs_to_know_the_inputs_is_refused(options):
    with pytest.raises(kerasbn.OptionError, match="trains in its own way"):
        kerasbn.plan(vae(), **options)


@keras.saving.register_keras_serializable("assemblies")
class Saved(VAE):
    def get_config(self):
        parts = {"encoder": self.encoder, "decoder": self.decoder}
        return {"name": self.name, **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}}

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})


class Forgetful(VAE):
    def __init__(self):
        super().__init__(network("encoder", 8, head=2), network("decoder", 8, width=2, head=6))

    def get_config(self):
        return {}


class Silent(VAE):
    def __init__(self):
        super().__init__(network("encoder", 8, head=2), network("decoder", 8, width=2, head=6))


def test_a_file_holds_the_new_parts_or_is_refused(tmp_path):
    source = Saved(network("encoder", 8, head=2), network("decoder", 8, width=2, head=6))
    source(X)
    result = kerasbn.rewrite(source)
    result.save(tmp_path / "saved.keras")
    loaded = keras.models.load_model(tmp_path / "saved.keras")
    assert names(loaded.encoder) == "d0 d0_bn d0_activation out"
    np.testing.assert_allclose(loaded(X), result(X), rtol=1e-6)
    for kind in (Forgetful, Silent):
        source = kind()
        source(X)
        with pytest.raises(NotImplementedError, match="get_config"):
            kerasbn.rewrite(source).save(tmp_path / "refused.keras")


@keras.saving.register_keras_serializable("assemblies")
class Task(keras.Model):
    """A functional model whose constructor takes a backbone, as those of keras-hub do."""

    def __init__(self, backbone, classes, **kwargs):
        x = backbone(backbone.input)
        head = L.Dense(classes, name="head")
        super().__init__(backbone.input, head(L.ReLU(name="last")(x)), **kwargs)
        self.backbone, self.head, self.classes = backbone, head, classes

    def compile(self, optimizer="auto", **kwargs):
        super().compile(keras.optimizers.Adam(1e-2) if optimizer == "auto" else optimizer, loss="mse", **kwargs)

    def fit(self, x, y, **kwargs):
        return super().fit(x / 2, y, verbose=0, **kwargs)

    def get_config(self):
        backbone = keras.saving.serialize_keras_object(self.backbone)
        return {"backbone": backbone, "classes": self.classes, "name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "backbone": keras.saving.deserialize_keras_object(config["backbone"])})


def task():
    inputs = keras.Input((6,), name="in")
    x = L.BatchNormalization(name="bn")(L.Dense(8, name="a")(inputs))
    backbone = keras.Model(inputs, L.Dense(5, name="c")(L.ReLU(name="f")(x)), name="backbone")
    model = Task(backbone, 3, name="task")
    model.compile()
    return randomize(model)


TASKS = {
    "rewrite": (kerasbn.rewrite, "in a bn f c c_bn"),
    "none": (lambda model: kerasbn.rewrite(model, position="none", dropout="none"), "in a bn f c"),
    "reuse": (lambda model: kerasbn.rewrite(model, copy=False), "in a bn f c c_bn"),
    "fold": (kerasbn.fold, "in a f c"),
    "from_keras": (kerasbn.layers.from_keras, "in a bn f c"),
}


@pytest.mark.parametrize("verb", TASKS)
def test_functional_models_of_a_class_of_their_own(verb, tmp_path):
    rewrite, expected = TASKS[verb]
    source = task()
    before = weights(source)
    result = rewrite(source)
    assert type(result) is Task
    assert names(result.backbone) == expected
    assert result.backbone in result.layers
    assert result.head in result.layers
    assert_same_function(source, result, X, tolerance=1e-4 if verb == "fold" else 1e-5)
    assert all(map(np.array_equal, before, weights(source)))
    assert isinstance(result.optimizer, keras.optimizers.Adam)
    result.save(tmp_path / "task.keras")
    loaded = keras.models.load_model(tmp_path / "task.keras")
    assert names(loaded.backbone) == expected
    assert_same_function(result, loaded, X)
    assert np.isfinite(result.fit(X, np.zeros((32, 3))).history["loss"][-1])


def test_a_file_that_would_lose_what_is_new_is_refused(tmp_path):
    result = kerasbn.rewrite(task(), rules=[("head", "before")])
    assert "head_bn" in names(result)
    with pytest.raises(NotImplementedError, match=r"another network.*keras.Model\(model.input, model.output\)"):
        result.save(tmp_path / "task.keras")
    keras.Model(result.input, result.output).save(tmp_path / "network.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "network.keras"), X)


@keras.saving.register_keras_serializable("assemblies")
class Backbone(keras.Model):
    """A functional model that is made from a number, as the networks of keras-hub are."""

    def __init__(self, units, **kwargs):
        inputs = keras.Input((6,), name="in")
        x = L.Dense(5, name="c")(L.ReLU(name="f")(L.Dense(units, name="a")(inputs)))
        super().__init__(inputs, x, **kwargs)
        self.units = units

    def get_config(self):
        return {"units": self.units, "name": self.name}


@keras.saving.register_keras_serializable("assemblies")
class NeedsUnits(Task):
    def __init__(self, backbone, classes, **kwargs):
        super().__init__(backbone, classes + 0 * backbone.units, **kwargs)


def test_networks_inside_that_are_made_from_numbers(tmp_path):
    source = Task(Backbone(8, name="backbone"), 3, name="task")
    plan = kerasbn.plan(source)
    assert "backbone (Backbone). What else they hold" in plan.notes[0]
    result = plan.apply()
    assert names(result.backbone) == "in a a_bn f c c_bn"
    result.save(tmp_path / "task.keras")
    assert_same_function(result, keras.models.load_model(tmp_path / "task.keras"), X)
    result = kerasbn.rewrite(NeedsUnits(Backbone(8, name="backbone"), 3, name="task"))
    with pytest.raises(NotImplementedError, match="no attribute 'units'"):
        result.save(tmp_path / "refused.keras")


@pytest.mark.parametrize("case", CASES)
def test_other_verbs(case, tmp_path):
    make, parts, _ = CASES[case]
    source = make()
    fit(source)
    normalized = kerasbn.rewrite(source)
    fit(normalized)
    plain = kerasbn.layers.to_keras(normalized)
    folded = kerasbn.fold(normalized)
    for old, new, serving in zip(parts(normalized), parts(plain), parts(folded), strict=True):
        kinds = {type(layer) for layer in new.layers if isinstance(layer, L.BatchNormalization)}
        assert kinds == {L.BatchNormalization}
        assert_same_function(old, new)
        assert names(serving) == "d0 d0_activation out"
        assert_same_function(old, serving, tolerance=1e-4)
        data = np.random.default_rng(1).normal(2, 3, (64, *old.input_shape[1:])).astype("float32")
        kerasbn.calibrate(old, data)
        np.testing.assert_allclose(
            old.get_layer("d0_bn").moving_mean, np.mean(old.get_layer("d0")(data), axis=0), rtol=1e-4, atol=1e-5
        )
        report = kerasbn.export(old, tmp_path / f"{old.name}.onnx")
        assert (report.folded, report.kept) == (1, {})


def test_exported(tmp_path):
    report = kerasbn.export(task(), tmp_path / "task.onnx")
    assert (report.folded, report.kept) == (1, {})


class Target(keras.Model):
    """A network with an average of its weights beside it, as BYOL (Grill et al., 2020), which holds both as lists."""

    def __init__(self, online, target, weights_of=lambda net: net.trainable_variables):
        super().__init__()
        self.held, self.averages = None, None  # ahead of the networks among the attributes
        self.online, self.target = online, target
        self.held, self.averages = weights_of(online), weights_of(target)

    def call(self, inputs):
        return self.online(inputs)

    def train_step(self, data):
        def loss_of():
            return ops.mean(ops.square(self.online(data, training=True) - self.target(data, training=False) - 1))

        loss = gradient_step(loss_of, self.online.trainable_variables, self.optimizer)
        for average, weight in zip(self.averages, self.held, strict=True):
            average.assign(0.5 * average + 0.5 * weight)
        return {"loss": loss}


def target(hidden=(8,), **arguments):
    model = Target(*(network(name, *hidden) for name in ("online", "target")), **arguments)
    model.compile(keras.optimizers.Adam(1e-2))
    model(X)
    model.fit(X, verbose=0)
    return model


KINDS_OF_WEIGHTS = {
    "those that train": lambda net: net.trainable_variables,
    "some": lambda net: [net.layers[0].kernel, net.layers[0].bias],
    "of a layer in a dict": lambda net: list({"kernel": net.layers[-1].kernel}.values()),
}


@pytest.mark.parametrize("copy", [True, False], ids=["copy", "reuse"])
@pytest.mark.parametrize("kind", KINDS_OF_WEIGHTS)
def test_weights_that_are_held_apart_are_those_of_the_networks(kind, copy):
    source = target(weights_of=KINDS_OF_WEIGHTS[kind])
    result = kerasbn.rewrite(source, position="none", dropout="none", copy=copy)
    assert [*map(id, result.averages)] == [*map(id, KINDS_OF_WEIGHTS[kind](result.target))]
    assert len(result.variables) == len(source.variables)
    if copy:
        for model in (source, result):
            keras.utils.set_random_seed(0)
            model.fit(X, epochs=2, verbose=0)
        assert_same_function(source.target, result.target, X)


def test_weights_of_a_layer_that_is_no_network_are_held_apart():
    class Holding(Distiller):
        def __init__(self, student, teacher):
            super().__init__(student, teacher)
            self.kernels, self.head = None, L.Dense(4)
            self.head.build((None, 4))
            self.kernels = [self.head.kernel]

    source = Holding(network("student", 8), network("teacher", 8))
    source.compile("sgd")
    source(X)
    result = kerasbn.rewrite(source)
    assert result.kernels[0] is result.head.kernel is not source.head.kernel


def test_a_layer_of_a_layer_is_held_apart_too():
    class Holding(Distiller):
        def __init__(self, student, teacher):
            super().__init__(student, teacher)
            self.steps = L.TimeDistributed(L.Dense(4))
            self.steps.build((None, 2, 4))
            self.inner = self.steps.layer

    source = Holding(network("student", 8), network("teacher", 8))
    source.compile("sgd")
    source(X)
    result = kerasbn.rewrite(source)
    assert result.inner is result.steps.layer is not source.inner
    assert "d0_bn" in names(result.student)


def test_weights_that_are_held_apart_get_normalizations_beside_them():
    source = target()
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"weights of 'online' apart.*all or those that train"):
        kerasbn.rewrite(source, position="before")
    kerasbn.rewrite(source, position="before", rules=[("*", "skip")])


def test_weights_that_are_held_apart_and_gone():
    def weights(net):
        return [net.get_layer("bn").gamma]

    hidden = [L.Dense(4), L.BatchNormalization(name="bn"), L.ReLU(), L.Dense(4)]
    online = keras.Sequential([keras.Input((6,)), *hidden], name="online")
    source = Target(online, keras.models.clone_model(online), weights_of=weights)
    source.compile("sgd")
    source(X)
    with pytest.raises(kerasbn.UnsupportedModelError, match=r"weights of 'online/bn/gamma' apart, .* has it no more"):
        kerasbn.rewrite(source, existing="remove")


@pytest.mark.parametrize("option", [{"rates": [("g/*", 0.1)]}, {"decay_exclude": ("bias",)}], ids=str)
def test_rates_by_layer_of_a_model_with_optimizers_of_its_own(option):
    with pytest.raises(kerasbn.OptionError, match="has several optimizers"):
        kerasbn.rewrite(gan(), **option)
