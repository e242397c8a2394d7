package peering

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zaptest"
	"pgregory.net/rapid"
)

func TestJoinCodeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c JoinCode
		c.Address = rapid.SampledFrom([]string{"10.99.0.1:7792", "[fe80::1]:1", "beta.example.com:7790", "[::ffff:1.2.3.4]:9"}).Draw(t, "address")
		copy(c.Fingerprint[:], rapid.SliceOfN(rapid.Byte(), FingerprintBytes, FingerprintBytes).Draw(t, "fingerprint"))
		copy(c.Secret[:], rapid.SliceOfN(rapid.Byte(), SecretBytes, SecretBytes).Draw(t, "secret"))
		text := c.String()
		if len(text) > 100 {
			t.Fatalf("%d characters", len(text))
		}
		back, err := ParseJoinCode(text)
		if err != nil || back != c {
			t.Fatalf("%s: %+v, %v", text, back, err)
		}
		sloppy := strings.ReplaceAll(strings.ToUpper(text[:20]+"-"+text[20:]+"\n"), "0", "O")
		if back, err = ParseJoinCode(sloppy); err != nil || back != c {
			t.Fatalf("%s: %+v, %v", sloppy, back, err)
		}
		// a single wrong character is always noticed
		i := rapid.IntRange(len(joinPrefix), len(text)-1).Draw(t, "wrong")
		wrong := []byte(text)
		const digits = "0123456789abcdefghjkmnpqrstvwxyz"
		wrong[i] = digits[(strings.IndexByte(digits, wrong[i])+rapid.IntRange(1, len(digits)-1).Draw(t, "by"))%len(digits)]
		if _, err := ParseJoinCode(string(wrong)); !errors.Is(err, ErrJoinCode) {
			t.Fatalf("%s for %s: %v", wrong, text, err)
		}
	})
}

func FuzzParseJoinCode(f *testing.F) {
	f.Add(JoinCode{Address: "10.99.0.1:7792"}.String())
	f.Add(JoinCode{Address: "beta:1"}.String())
	f.Add("hapair1")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseJoinCode(text)
		if err != nil {
			if !errors.Is(err, ErrJoinCode) {
				t.Fatal(err)
			}
			return
		}
		if again, err := ParseJoinCode(c.String()); err != nil || again != c {
			t.Fatalf("%+v became %+v, %v", c, again, err)
		}
	})
}

func FuzzParseHello(f *testing.F) {
	h := hello{min: 1, max: 2, incarnation: 3, cluster: "shop", from: "alpha", to: "beta", path: "lan", purpose: "mirror/pg/data"}
	f.Add(h.append(nil))
	f.Add(h.append(nil)[:20])
	h.machine = "20261127T065000Z-ABCDEFGHIJKLMNOP"
	f.Add(h.append(nil))
	f.Add((&answer{code: Busy, version: 1, node: "beta", text: "no"}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHello(b); err == nil {
			if out := h.append(nil); len(out) > MaxHelloBytes || !bytes.HasPrefix(b, out) {
				t.Fatalf("%x became %x", b, out)
			}
		} else if !errors.Is(err, ErrProtocol) {
			t.Fatal(err)
		}
		if a, err := parseAnswer(b); err == nil {
			if out := a.append(nil); len(out) > MaxHelloBytes {
				t.Fatalf("answer of %d bytes", len(out))
			}
		} else if !errors.Is(err, ErrProtocol) {
			t.Fatal(err)
		}
	})
}

// offer starts a JoinOffer; the result of Serve comes on the channel.
func offer(t *testing.T, valid time.Duration) (*JoinOffer, chan error, *string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewJoinOffer(l, l.Addr().String(), valid, func(node string) (Bundle, error) {
		if node != "beta" {
			return Bundle{}, errors.New("not in the configuration")
		}
		return Bundle{Config: []byte("cluster: shop\n"), Key: bytes.Repeat([]byte{1}, KeyBytes)}, nil
	}, zaptest.NewLogger(t))
	if err != nil {
		t.Fatal(err)
	}
	done, joined := make(chan error, 1), new(string)
	ctx, cancel := context.WithCancel(context.Background())
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		node, err := o.Serve(ctx)
		*joined = node
		done <- err
	}()
	t.Cleanup(func() { cancel(); <-finished })
	return o, done, joined
}

func TestJoin(t *testing.T) {
	o, done, joined := offer(t, time.Minute)
	code, err := ParseJoinCode(o.Code.String())
	if err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	wrong := code
	wrong.Secret[0] ^= 1
	if _, err := Join(ctx, wrong, "beta"); !errors.Is(err, ErrJoinRefused) {
		t.Fatalf("wrong secret: %v", err)
	}
	wrong = code
	wrong.Fingerprint[0] ^= 1
	if _, err := Join(ctx, wrong, "beta"); !errors.Is(err, ErrJoinPin) {
		t.Fatalf("wrong fingerprint: %v", err)
	}
	if _, err := Join(ctx, code, "delta"); !errors.Is(err, ErrJoinRefused) {
		t.Fatalf("unknown node: %v", err)
	}
	b, err := Join(ctx, code, "beta")
	if err != nil || string(b.Config) != "cluster: shop\n" || len(b.Key) != KeyBytes {
		t.Fatalf("%+v, %v", b, err)
	}
	if err := <-done; err != nil || *joined != "beta" {
		t.Fatalf("%q, %v", *joined, err)
	}
	if _, err := Join(ctx, code, "beta"); err == nil {
		t.Fatal("the code worked twice")
	}
}

func TestJoinExpires(t *testing.T) {
	_, done, _ := offer(t, time.Millisecond)
	if err := <-done; !errors.Is(err, ErrJoinExpired) {
		t.Fatal(err)
	}
}

func TestJoinGuessing(t *testing.T) {
	o, done, _ := offer(t, time.Minute)
	code := o.Code
	code.Secret[0] ^= 1
	for range maxJoinAttempts {
		if _, err := Join(testContext(t), code, "beta"); err == nil {
			t.Fatal("let in")
		}
	}
	if err := <-done; !errors.Is(err, ErrJoinSpent) {
		t.Fatal(err)
	}
}

func TestKeyFile(t *testing.T) {
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cluster.psk")
	if err := os.WriteFile(file, FormatKey(key), 0o600); err != nil {
		t.Fatal(err)
	}
	if back, err := LoadKey(file); err != nil || !bytes.Equal(back, key) {
		t.Fatalf("%x, %v", back, err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(file); err == nil || !strings.Contains(err.Error(), "0640") {
		t.Fatalf("wide permissions: %v", err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKey(short); err == nil {
		t.Fatal("short key accepted")
	}
}
