package commands

import (
	"testing"

	"hapair/agent/api/apitest"
)

func TestGoldenDrill(t *testing.T) {
	rep := apitest.SampleDrill()
	text := renderDrill(&rep, style{})
	golden(t, "drill", renderPlan(&rep, style{})+"\n"+text)
	if plain := uncolour(renderDrill(&rep, style{on: true})); plain != text {
		t.Error("coloured differently")
	}
}
