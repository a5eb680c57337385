# SPDX-License-Identifier: Apache-2.0
"""Labels as tools export them, each form in a file of its own: what it is known by, and how it is read."""
