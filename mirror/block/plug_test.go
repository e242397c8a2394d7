package block

import "testing"

// counting is a submitter that counts.
type counting struct{ done, told int }

func (c *counting) Answered() { c.told++ }

func (c *counting) request() *Request {
	return &Request{By: c, Done: func(r *Request, _ error) {
		c.done++
		r.By = nil // ours again: may be used for something else
	}}
}

func TestAnswerTellsAfterDone(t *testing.T) {
	var c counting
	c.request().Answer(nil)
	if c.done != 1 || c.told != 1 {
		t.Errorf("%+v", c)
	}
	(&Request{Done: func(*Request, error) {}}).Answer(nil) // nobody to be told
}

// Each submitter is told once after a series, and nobody is forgotten when
// there are more of them than an Answers remembers.
func TestAnswersTellEachOnce(t *testing.T) {
	var a Answers
	few, many := make([]counting, answersMax), make([]counting, 3*answersMax)
	for range 5 {
		for i := range few {
			a.Done(few[i].request(), nil)
		}
	}
	for i := range few {
		if few[i].told != 0 {
			t.Fatalf("submitter %d was told before the end of the series", i)
		}
	}
	a.Flush()
	for i := range many {
		a.Done(many[i].request(), nil)
	}
	a.Flush()
	a.Flush()
	for i := range few {
		if few[i] != (counting{5, 1}) {
			t.Errorf("submitter %d: %+v", i, few[i])
		}
	}
	for i := range many {
		if many[i] != (counting{1, 1}) {
			t.Errorf("one of many, %d: %+v", i, many[i])
		}
	}
}
