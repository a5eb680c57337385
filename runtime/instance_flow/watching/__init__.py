# SPDX-License-Identifier: Apache-2.0
"""Live views of a run: a window, or a page in a browser."""
