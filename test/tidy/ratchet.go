package tidy

// TheLimits are those of this repository. A function of 70 lines still fits a
// screen; a file of 500 is still one subject. What is longer stands below with
// the reason, and may only shrink.
var TheLimits = Limits{
	FunctionLines: 70,
	FileLines:     500,
	Exceptions:    []Exception{},
}
