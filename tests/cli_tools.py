"""What the tests of the command line share: matrices, files, and how a command is called."""

import pathlib

import numpy as np
import scipy.io
import scipy.sparse as sp

from linsolve_prim.cli import BAD_INPUT, main

ROOT = pathlib.Path(__file__).parents[1]
MATRICES = ROOT.parent / "shared" / "matrices"


def laplacian(n=12, shift=0.5):
    """Symmetric positive definite, pentadiagonal."""
    bands = [-1.0, -1.0, 4.0 + shift, -1.0, -1.0]
    return sp.csr_array(sp.diags_array(bands, offsets=[-2, -1, 0, 1, 2], shape=(n, n)))


def unsymmetric(n=12):
    return sp.csr_array(laplacian(n) + sp.diags_array([0.7], offsets=[2], shape=(n, n)))


def status_and_output(capsys, *argv):
    status = main(["solve", *map(str, argv), "--repeat", "0"])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def assert_bad_input(capsys, *argv, match):
    """Exit status 2, one line on stderr that matches, and no traceback."""
    status, _, err = status_and_output(capsys, *argv)
    assert status == BAD_INPUT
    assert len(err.splitlines()) == 1, err
    assert err.startswith("linsolve_prim solve: ")
    for part in match:
        assert part in err


def write_mtx(A):
    scipy.io.mmwrite("A.mtx", sp.coo_array(A))
    return "A.mtx"


def write_dense_mtx(A):
    scipy.io.mmwrite("A.mtx", A.toarray(), symmetry="general")
    return "A.mtx"


def write_npy(A):
    np.save("A.npy", A.toarray())
    return "A.npy"


def write_named(A):
    np.savez("A.npz", A=A.toarray())
    return "A.npz"


def write_csr(A):
    np.savez("A.npz", data=A.data, indices=A.indices, indptr=A.indptr, shape=A.shape)
    return "A.npz"


def write_scipy(kind):
    def write(A):
        sp.save_npz("A.npz", A.asformat(kind))
        return "A.npz"

    return write
