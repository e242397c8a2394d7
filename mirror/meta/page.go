package meta

import (
	"fmt"

	"hapair/mirror/dirty"
)

// The payload of a bitmap page is dirty.PageBytes of bits; the header's index is
// the number of the page.
var _ [payloadMax - dirty.PageBytes]struct{}

// encodePage writes a page of the bitmap into block.
func encodePage(block []byte, device UUID, page int, payload []byte) error {
	if len(payload) != dirty.PageBytes {
		return fmt.Errorf("bitmap page %d of %d bytes, want %d", page, len(payload), dirty.PageBytes)
	}
	copy(block[headerBytes:], payload)
	seal(block, header{kind: typeBitmap, device: device, index: uint64(page)}, len(payload))
	return nil
}

// decodePage reads page number page of the bitmap; the payload is part of block.
func decodePage(block []byte, page int) (UUID, []byte, error) {
	h, p, err := unseal(block, typeBitmap)
	if err != nil {
		return h.device, nil, err
	}
	if h.index != uint64(page) || len(p) != dirty.PageBytes {
		return h.device, nil, fmt.Errorf("%w: bitmap page %d of %d bytes where page %d should be",
			ErrMalformed, h.index, len(p), page)
	}
	return h.device, p, nil
}
