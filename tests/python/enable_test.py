"""What happens where gmlake cannot be had: never anything worse than PyTorch alone."""

AUTOLOAD = "from gmlake._autoload import autoload; autoload(); print('alive')"


def test_the_entry_point_does_nothing_unless_asked(python):
    for off in ("", "0", "false"):
        ended = python(AUTOLOAD, torch="2.11.0", GMLAKE=off)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "alive\n", "")


def test_the_entry_point_survives_a_version_that_is_not_known(python):
    ended = python(AUTOLOAD, torch="3.7.1+cu150", GMLAKE="1")
    assert (ended.returncode, ended.stdout) == (0, "alive\n")
    assert "3.7.1" in ended.stderr and "PyTorch's own allocator" in ended.stderr


def test_the_entry_point_survives_a_torch_without_cuda(python):
    ended = python(AUTOLOAD, torch="2.11.0+cpu", cuda=None, GMLAKE="1")
    assert (ended.returncode, ended.stdout) == (0, "alive\n")
    assert "not built for CUDA" in ended.stderr


def test_the_entry_point_survives_no_compiler(python):
    ended = python(AUTOLOAD, torch="2.11.0+cu130", GMLAKE="1", PATH="/nonexistent", CXX="")
    assert (ended.returncode, ended.stdout) == (0, "alive\n")
    assert "not enabled" in ended.stderr


def test_the_entry_point_survives_a_cache_that_cannot_be_written(python):
    ended = python(AUTOLOAD, torch="2.11.0+cu130", GMLAKE="1", GMLAKE_CACHE_DIR="/proc/nowhere")
    assert (ended.returncode, ended.stdout) == (0, "alive\n")
    assert "GMLAKE_CACHE_DIR" in ended.stderr


def test_importing_warns_once_and_goes_on(python):
    ended = python("import gmlake.torch; print(gmlake.torch.is_enabled(), gmlake.torch.enable())", torch="2.4.0")
    assert ended.stdout == "False False\n"
    assert ended.stderr.count("RuntimeWarning") == 1 and "2.9 to 2.12" in ended.stderr


def test_strict_raises(python):
    ended = python(
        "import warnings; warnings.simplefilter('ignore')\nimport gmlake.torch\n"
        "try: gmlake.torch.enable(strict=True)\n"
        "except gmlake.torch.UnavailableError as error: print('refused:', error)",
        torch="2.4.0",
    )
    assert ended.stdout.startswith("refused: this gmlake knows torch 2.9 to 2.12"), ended.stderr


def test_what_needs_it_says_so(python):
    for call in ("memory_stats()", "snapshot('x.json')", "trim()"):
        ended = python(
            f"import warnings; warnings.simplefilter('ignore')\nimport gmlake\n"
            f"try: gmlake.{call}\nexcept RuntimeError as error: print(error)",
            torch="2.4.0",
        )
        assert "gmlake is not enabled" in ended.stdout, ended.stderr


def test_gmlake_itself_wants_no_torch(python):
    ended = python("import gmlake, sys; print(gmlake.__version__, 'torch' in sys.modules)")
    assert ended.returncode == 0 and ended.stdout.endswith(" False\n"), ended.stderr
