"""Worker: the process on a device that answers. All of it that travels to a board.

Needs Python 3.9 or later, numpy and onnxruntime; nothing else. Modules import each other relatively, so that the
package also runs under another name, out of an archive.
"""
