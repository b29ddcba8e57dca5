#pragma once

namespace glesam {

// Whether products of bytes are added without loss. An x86 CPU without VNNI adds two of them in 16
// bits, in which they do not always fit and are cut off; one that cannot be asked is taken for such.
bool adds_bytes_exactly();

}  // namespace glesam
