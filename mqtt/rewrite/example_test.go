package rewrite_test

import (
	"fmt"

	"github.com/anyquic/anyquic/mqtt/rewrite"
)

func Example() {
	m, err := rewrite.New(rewrite.Rule{Filter: "sensors/+/#", To: "site1/$1/$2"})
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Name("sensors/7/temp/in"))
	fmt.Println(m.Filter("sensors/+/temp/#"))
	fmt.Println(m.Name("orders/7"))
	// Output:
	// site1/7/temp/in true <nil>
	// site1/+/temp/# true <nil>
	//  false <nil>
}
