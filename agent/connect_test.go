package main

import (
	"testing"

	"hapair/mirror"
	"hapair/mirror/state"
)

func TestLeftBehind(t *testing.T) {
	for _, c := range []struct {
		state         state.Connection
		primary, want string
	}{
		{state.Connected, "alpha", "beta"},
		{state.Connected, "beta", "alpha"},
		{state.Connected, "", ""},
		{state.Connecting, "alpha", ""},
		{state.StandAlone, "beta", ""},
	} {
		if got := leftBehind(&mirror.View{State: c.state}, c.primary, "alpha", "beta"); got != c.want {
			t.Errorf("%s, Primary %q: %q", c.state, c.primary, got)
		}
	}
}
