package frame

import "testing"

func TestMAC(t *testing.T) {
	for text, own := range map[string]bool{
		"02:48:41:00:00:0a": true, "00:16:3e:00:00:01": true, "00:00:5e:00:03:01": true,
		"00:00:00:00:00:00": false, "01:00:5e:00:00:01": false, "ff:ff:ff:ff:ff:ff": false,
		"00:00:5e:00:01:33": false, "00:00:5e:00:02:33": false,
	} {
		m, err := ParseMAC(text)
		if err != nil || m.String() != text {
			t.Errorf("%s is read as %s, %v", text, m, err)
		}
		if err := m.Stations(); (err == nil) != own {
			t.Errorf("%s as a station's: %v", text, err)
		}
	}
	for _, text := range []string{"", "02", "02:48:41:00:00", "02:48:41:00:00:0a:0b", "02-48-41-00-00-0a", "02:48:41:00:00:0", "02:48:41:00:00:0ab", "02:48:41:00:00:zz"} {
		if m, err := ParseMAC(text); err == nil {
			t.Errorf("%q is read as %s", text, m)
		}
	}
	var none MAC
	if b, err := none.MarshalText(); err != nil || len(b) > 0 {
		t.Errorf("none is %q, %v", b, err)
	}
	m := MAC{1}
	if err := m.UnmarshalText(nil); err != nil || !m.IsZero() {
		t.Errorf("nothing is read as %s, %v", m, err)
	}
}

func FuzzParseMAC(f *testing.F) {
	f.Add("02:48:41:00:00:0A")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMAC(text)
		if err != nil {
			return
		}
		if again, err := ParseMAC(m.String()); err != nil || again != m {
			t.Errorf("%q is read as %s, and that as %s, %v", text, m, again, err)
		}
	})
}
