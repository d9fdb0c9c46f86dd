"""What pyproject.toml cannot say of the build: how a wheel is called that has no compiled kernel."""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel


class BuildWheel(bdist_wheel):
    """Builds the wheel of a platform only where the kernel, which is optional, was compiled for it."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag; that of any platform for a wheel without the kernel, asked for after all is built."""
        kernels = self.get_finalized_command("build_ext").get_outputs()
        if all(Path(kernel).exists() for kernel in kernels):
            return super().get_tag()
        self.root_is_pure = True
        return "py3", "none", "any"


setup(cmdclass={"bdist_wheel": BuildWheel})
