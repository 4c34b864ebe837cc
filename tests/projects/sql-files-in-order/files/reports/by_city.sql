select city, sum(cents) from bill join customer on customer = id group by city order by city;
