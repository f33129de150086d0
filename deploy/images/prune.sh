#!/bin/sh
# Takes out of an environment what nothing reads at run time, and compiles the rest. Use: prune.sh FOLDER
# Byte code is valid whatever times a layer gives to files. What stays uncompiled is imported all the same, only slower.
set -eu
cd "$1"/lib/python3.11/site-packages
# Tests, headers, stubs, source maps, notebooks.
find . -depth -type d \( -name tests -o -name include \) -exec rm -r {} +
find . -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.js.map' -o -name '*.css.map' \
  -o -name '*.ipynb' \) -delete
# Extensions of Jupyter, which is not here.
rm -rf "$1"/share/jupyter "$1"/etc/jupyter "$1"/evidently jupyterlab_plotly evidently/nbextension
# Data of tests and of examples; Feast's own pages; Kubernetes' second client.
rm -rf onnx/backend/test feast/ui/build kubernetes/aio statsmodels/datasets/*/src/*.csv
# Of Amazon's services, the store and the ways to be let in.
find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' ! -name signin ! -name kms \
  -exec rm -r {} +
# Of plotly's ten thousand validators, Evidently's pages use those of four kinds. Some vendors ship templates that are
# not Python, which the compiler minds.
python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
  -x 'plotly/validators/(?!bar/|heatmap/|layout/|scatter/|_|[a-z]+/__init__)' . >/dev/null || true
