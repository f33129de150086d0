-- Posts the lines of the file BODIES one after the other.
local requests, number = {}, 0
function init(args)
  for line in io.lines(os.getenv("BODIES")) do
    requests[#requests + 1] = wrk.format("POST", nil, {["Content-Type"] = "application/json"}, line)
  end
end
function request()
  number = number % #requests + 1
  return requests[number]
end
