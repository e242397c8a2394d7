package wire

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// goldenResize is what goldenHello ends with while a resize runs.
const goldenResize = "" +
	"0400" + "4600" + // section 4 of 70 bytes
	"0100" + // one volume
	"0010000000000000" + // from 4 KiB
	"0000008000000000" + // to 2 GiB
	"05" + // refused
	"0700000000000000" + // round 7
	"0000006000000000" + // 1.5 GiB
	"0300" + // volume 3
	"01" + // trusted
	"1e00" + hexNoRoom // 30 bytes of text

const hexNoRoom = "746865206469736b20686173206e6f20726f6f6d20666f7220746861742e"

func resizingBody() *HelloBody {
	h := goldenHelloBody()
	h.Volumes[0].FloorBytes, h.Volumes[0].RoomBytes = 4096, 2<<30
	h.Resize = Resize{Step: ResizeRefused, Round: 7, Volume: 3, SizeBytes: 3 << 29, Trusted: true, Text: "the disk has no room for that."}
	return h
}

func TestResizeGolden(t *testing.T) {
	b, err := AppendHello(nil, resizingBody())
	if err != nil {
		t.Fatal(err)
	}
	want := goldenHello + goldenResize
	if got := hex.EncodeToString(b); got != want {
		t.Fatalf("hello\n got %s\nwant %s", got, want)
	}
	back, err := ParseHello(b)
	if err != nil || !reflect.DeepEqual(back, resizingBody()) {
		t.Fatalf("back: %+v, %v", back, err)
	}
	for n := len(b) - 1; n > len(goldenHello)/2; n-- {
		if _, err := ParseHello(b[:n]); !errors.Is(err, ErrHello) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestResizeRefuses(t *testing.T) {
	for name, change := range map[string]func(h *HelloBody){
		"step":          func(h *HelloBody) { h.Resize.Step = lastStep + 1 },
		"negative size": func(h *HelloBody) { h.Resize.SizeBytes = -1 },
		"long text":     func(h *HelloBody) { h.Resize.Text = strings.Repeat("x", MaxTextBytes+1) },
		"negative room": func(h *HelloBody) { h.Volumes[0].RoomBytes = -1 },
	} {
		h := resizingBody()
		change(h)
		if _, err := AppendHello(nil, h); !errors.Is(err, ErrHello) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h := resizingBody()
	b, err := AppendHello(nil, h)
	if err != nil {
		t.Fatal(err)
	}
	at := len(goldenHello)/2 + 4 // the number of volumes
	b[at] = 2
	if _, err := ParseHello(b); !errors.Is(err, ErrHello) {
		t.Errorf("room of two volumes, of which there is one: %v", err)
	}
}
