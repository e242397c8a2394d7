package main

import (
	"errors"
	"testing"
	"time"

	"hapair/agent/apiv1"
	"hapair/agent/config"
	"hapair/mirror/aftersplit"
)

func TestSettingsAreChangedAllOrNone(t *testing.T) {
	s := settings{config.SuspendIO, 30 * time.Second, 20 * time.Second, config.ProtocolC, config.Congestion{}, aftersplit.Default}
	got, err := s.changed(&apiv1.SetRequest{OnNoQuorum: "error", PeerTimeout: "0", Protocol: "B"})
	if want := (settings{config.FailIO, 30 * time.Second, 0, config.ProtocolB, config.Congestion{}, aftersplit.Default}); err != nil || *got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, bad := range []apiv1.SetRequest{
		{}, {OnNoQuorum: "fail"}, {Protocol: "D"}, {DiskTimeout: "soon"}, {DiskTimeout: "1ms"}, {PeerTimeout: "2h"}, {PeerTimeout: "-3s"}, {OnNoQuorum: "error", PeerTimeout: "30"},
	} {
		var no *apiv1.Problem
		if got, err := s.changed(&bad); !errors.As(err, &no) || no.Code != apiv1.CodeBadRequest || got != nil {
			t.Errorf("%+v: %+v, %v", bad, got, err)
		}
	}
}
